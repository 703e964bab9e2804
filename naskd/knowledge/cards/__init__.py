"""Cards of all knowledge losses, by family (Gou et al., 2021, arXiv 2006.05525)."""
