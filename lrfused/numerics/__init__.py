"""Arithmetic that every backend follows: elementary functions, the norm."""
