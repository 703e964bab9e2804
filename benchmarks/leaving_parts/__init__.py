"""What the benchmark of exported students runs in other environments."""
