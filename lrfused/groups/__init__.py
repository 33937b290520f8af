"""Parameter groups: arguments, hyperparameters, and the keys this package adds to them.

For callers: :func:`layerwise`, the groups of a model by depth.
"""

from lrfused.groups.by_depth import layerwise

__all__ = ["layerwise"]
