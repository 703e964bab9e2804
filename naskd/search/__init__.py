"""The search: one Optuna study, what it may propose, what it books. The only room that imports optuna."""
