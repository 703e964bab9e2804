"""Feature-based knowledge: what the teacher computes on the way (Gou et al., 2021, arXiv 2006.05525)."""
