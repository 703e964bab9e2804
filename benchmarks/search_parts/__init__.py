"""Parts of ``bench_search.py``: searches on recorded tables, and what is compared of them."""
