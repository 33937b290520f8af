"""Options, hyperparameters and the sources of their values."""
