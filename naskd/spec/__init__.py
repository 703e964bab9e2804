"""What can be said about a study and its designs: plain data, validated. No torch, no optuna, no ray."""
