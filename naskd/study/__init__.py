"""The study: one Optuna study, what it may propose, and its ledger. The only room that imports optuna."""
