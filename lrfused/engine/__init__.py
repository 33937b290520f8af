"""The host side of a step: bind tensors to a backend, detect changes, run the backend."""
