"""Parts of ``record_table.py``: the enumerated space, the images, one training, and what is published of all."""
