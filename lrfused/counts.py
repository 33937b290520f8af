"""How often each parameter was updated, and the products of its betas so far.

The truth is int64; torch's world sees float32 copies through ``optimizer.state[p]["step"]``,
which are views of one tensor that every backend writes.
"""

from typing import Any

import torch
from torch import Tensor

Groups = list[dict[str, Any]]
States = Any  # torch's defaultdict: parameter -> {"step", "exp_avg", ...}


class Counts:
    """The counts of a fixed list of parameters; another list takes a new object."""

    def __init__(self, params: list[Tensor], device: torch.device):
        self.params = params
        self.counts = torch.zeros(len(params), dtype=torch.int64, device=device)
        self.steps = torch.zeros(len(params), dtype=torch.float32, device=device)
        self.products = torch.ones((len(params), 2), dtype=torch.float64, device=device)
        self.views = [self.steps[i] for i in range(len(params))]
        self._before: Counts | None = None  # whose views may still stand in the states

    def set(self, index: int, count: int, products: Tensor) -> None:
        """The count of a parameter and the products of its betas."""
        self.counts[index] = count
        self.steps[index] = float(count)
        self.products[index] = products.to(self.products)

    def moved(self, groups: Groups, states: States) -> "Counts":
        """Counts for the present parameters: ours, unless state["step"] was replaced or lost."""
        params = [(g, p) for g, group in enumerate(groups) for p in group["params"]]
        new = Counts([p for _, p in params], self.counts.device)
        new._before = self
        ours = self._places_of_views()
        for index, (g, param) in enumerate(params):
            shown = states.get(param, {}).get("step")
            if shown is None:
                continue  # no state, no updates so far
            if id(shown) in ours:
                old, place = ours[id(shown)]
                new.set(index, int(old.counts[place]), old.products[place])
            else:
                betas = torch.tensor([float(b) for b in groups[g]["betas"]], dtype=torch.float64)
                new.set(index, int(shown), betas ** int(shown))
        return new

    def _places_of_views(self) -> dict[int, tuple["Counts", int]]:
        """Where a view counts: here, or there where an interrupted ``bind`` left it standing."""
        places = self._before._places_of_views() if self._before is not None else {}
        return {**places, **{id(view): (self, i) for i, view in enumerate(self.views)}}

    def bind(self, states: States) -> None:
        """Let state["step"] of every parameter that has state show its count."""
        for param, view in zip(self.params, self.views, strict=True):
            if states.get(param):
                states[param]["step"] = view
        self._before = None

    def renew_views(self) -> None:
        """After a deepcopy or unpickling the views may be views no more."""
        self.views = [self.steps[i] for i in range(len(self.params))]

    def read(self, params: list[Tensor], states: States) -> tuple[list[int], list[list[float]]]:
        """The exact counts and the products of some parameters, for a checkpoint."""
        places = {id(p): i for i, p in enumerate(self.params)}
        counts, products = [], []
        for param in params:
            shown, place = states.get(param, {}).get("step"), places.get(id(param))
            count, product = 0 if shown is None else int(shown), [1.0, 1.0]
            if place is not None:
                if float(self.steps[place]) == float(count):
                    count = int(self.counts[place])
                product = self.products[place].tolist()
            counts.append(count)
            products.append(product)
        return counts, products
