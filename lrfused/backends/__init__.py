"""Backends: their protocol, the registry, `info()`, and a folder for each."""
