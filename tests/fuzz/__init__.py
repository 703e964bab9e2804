"""Damaged study files, runs and data folders, with fixed seeds: nothing crashes, and no number changes in silence."""
