"""The host's side of a step: binds tensors to a backend, detects changes, runs it."""
