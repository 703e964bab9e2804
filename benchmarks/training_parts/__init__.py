"""The parts of ``benchmarks/training.py``. A part measures rows and makes a Markdown table of them."""
