"""What steps a table of tensors: the protocol, the registry, a folder for each backend."""
