"""What an optimizer is: its rule. A new one is its file and its name in this list."""

from lrfused.rules.adamw import ADAMW
from lrfused.rules.lion import LION
from lrfused.rules.rule import UpdateRule
from lrfused.rules.sgd import SGD

RULES = (ADAMW, LION, SGD)

__all__ = ["ADAMW", "LION", "RULES", "SGD", "UpdateRule"]
