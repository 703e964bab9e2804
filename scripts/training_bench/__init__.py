"""The parts of ``scripts/bench_training.py``. A part measures rows and makes a Markdown table of them."""
