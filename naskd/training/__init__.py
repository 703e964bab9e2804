"""The training loop and its parts. It executes phases and knows no scheme, no loss and no network by name."""
