"""Response-based knowledge: what the teacher answers (Gou et al., 2021, arXiv 2006.05525)."""
