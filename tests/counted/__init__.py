"""What tests/counts.py counts in machine code and PTX."""
