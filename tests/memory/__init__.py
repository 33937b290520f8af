"""Tensors as flat memory."""
