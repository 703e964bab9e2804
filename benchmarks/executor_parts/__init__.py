"""The parts of ``benchmarks/executors.py``. A part measures rows and makes a Markdown table of them."""
