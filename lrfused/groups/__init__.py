"""Parameter groups: their arguments, hyperparameters, and what their dictionaries carry."""
