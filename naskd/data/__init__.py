"""Data sets, splits, views and batches.

Importing this package opens nothing. :mod:`naskd.data.sealed` alone opens test images, and nothing that a
search reaches may import it (an import contract in ``pyproject.toml``); for the same reason only
:mod:`naskd.data.load` and :mod:`naskd.data.sealed` may import the readers of raw images.
"""
