"""Options, hyperparameters and where their values come from."""
