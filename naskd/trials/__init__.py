"""One trial: what it is given, what must exist before it, its training, and what comes of it."""
