"""One file per block."""
