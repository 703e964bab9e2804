"""Teacher sources that need packages of their own, one file each. Their cards are in :mod:`naskd.spec.teachers`."""
