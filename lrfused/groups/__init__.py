"""Parameter groups: arguments, hyperparameters, and the keys this package adds to them."""
