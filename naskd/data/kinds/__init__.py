"""Readers of raw images, one file a kind of data. Their cards are in :mod:`naskd.spec.datasets`.

They are imported by the names on the cards alone, by :mod:`naskd.data.sources`: nothing else may open raw images (an
import contract in ``pyproject.toml``).
"""
