"""Update rules, which define the optimizers. A new one is a file and an entry in this list."""

from lrfused.rules.adamw import ADAMW
from lrfused.rules.lion import LION
from lrfused.rules.rule import UpdateRule
from lrfused.rules.sgd import SGD

RULES = (ADAMW, LION, SGD)

__all__ = ["ADAMW", "LION", "RULES", "SGD", "UpdateRule"]
