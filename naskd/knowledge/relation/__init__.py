"""Relation-based knowledge: how samples, or stages, relate (Gou et al., 2021, arXiv 2006.05525)."""
