"""Tensors as flat memory: operands, formats, what is accepted."""
