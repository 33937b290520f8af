"""What an optimizer remembers beside the operands of its rule: counters, loss scale, counts."""
