"""Executors of this machine: one trial at a time, or several in processes of their own."""
