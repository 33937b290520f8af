"""Arithmetic that all backends share: elementary functions, the norm, rounding."""
