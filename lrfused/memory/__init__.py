"""Tensors as flat memory: operands, formats, checks."""
