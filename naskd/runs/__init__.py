"""What the command line does, as Python: search, look, retrain, export, estimate."""
