"""The search for settings: spaces, candidates, Optuna's journal, results."""
