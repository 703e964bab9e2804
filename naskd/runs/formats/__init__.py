"""Export formats, one file each; their cards are in :mod:`naskd.spec.exports`."""
