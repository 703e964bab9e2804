"""Data sets, splits, views and batches.

Importing this package opens nothing. :mod:`naskd.data.sealed` alone reads test images; :mod:`naskd.data.survey`
counts and tries them, and throws them away. Nothing that trains or chooses may import either (import contracts in
``pyproject.toml``); for the same reason these two and :mod:`naskd.data.load` alone may import the readers of raw
images.
"""
