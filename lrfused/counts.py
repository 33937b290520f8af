"""How often each parameter was updated, and the products of its betas so far.

The truth is int64; torch's world sees float32 copies through ``optimizer.state[p]["step"]``,
which are views of one tensor that every backend writes.
"""

from typing import Any

import torch
from torch import Tensor

from lrfused.table import place_of

Groups = list[dict[str, Any]]
States = Any  # torch's defaultdict: parameter -> {"step", "exp_avg", ...}


def is_count(shown: float) -> bool:
    """What stands in state["step"] can be a number of updates."""
    return 0.0 <= shown < 2.0**62


def as_count(shown: Any) -> int:
    """A state's "step" as a count.

    Raises:
        ValueError: it is none.
    """
    if not is_count(float(shown)):
        raise ValueError(f"state['step']: must be a count, in [0, 2**62), got {float(shown)}")
    return int(shown)


def power(beta: float, count: int) -> float:
    """The product of so many equal betas; one that cannot be counts as 0."""
    return beta**count if 0.0 <= beta < 1.0 else float(count == 0)


class Counts:
    """The counts of a fixed list of parameters; another list takes a new object."""

    def __init__(self, params: list[Tensor], device: torch.device):
        self.params = params
        self.counts = torch.zeros(len(params), dtype=torch.int64, device=device)
        self.steps = torch.zeros(len(params), dtype=torch.float32, device=device)
        self.products = torch.ones((len(params), 2), dtype=torch.float64, device=device)
        self.renew_views()

    def set(self, index: int, count: int, products: Tensor) -> None:
        """The count of a parameter and the products of its betas."""
        self.counts[index] = count
        self.steps[index] = float(count)
        self.products[index] = products.to(self.products)

    def moved(self, groups: Groups, states: States) -> "Counts":
        """Counts for the present parameters: ours, unless state["step"] was replaced or lost.

        Of the same parameters they stay where they are: captured graphs know these addresses.
        """
        params = [(g, p) for g, group in enumerate(groups) for p in group["params"]]
        new = Counts([p for _, p in params], self.counts.device)
        places = {id(p): i for i, p in enumerate(self.params)}
        for index, (g, param) in enumerate(params):
            shown = states.get(param, {}).get("step")
            if shown is None:
                continue  # no state, no updates so far
            old = places.get(id(param))
            if old is not None and self.is_shown(old, shown):
                new.set(index, int(self.counts[old]), self.products[old])
            else:
                count = as_count(shown)
                products = [power(float(beta), count) for beta in groups[g]["betas"]]
                new.set(index, count, torch.tensor(products, dtype=torch.float64, device="cpu"))
        if [id(p) for p in new.params] != [id(p) for p in self.params]:
            return new
        # The counts last: after an interrupt the others would still be seen to differ.
        self.products.copy_(new.products)
        self.steps.copy_(new.steps)
        self.counts.copy_(new.counts)
        self.renew_views()  # somebody may have pointed one elsewhere
        return self

    def is_shown(self, index: int, shown: Any) -> bool:
        """Nobody wrote another count over ours, which float32 shows rounded."""
        return float(shown) == float(self.counts[index].float())

    def bind(self, states: States) -> None:
        """Let state["step"] of every parameter that has state show its count."""
        for param, view in zip(self.params, self.views, strict=True):
            if states.get(param):
                states[param]["step"] = view

    def renew_views(self) -> None:
        """What state["step"] will be; after a deepcopy, say, the old ones may be views no more."""
        self.views = [self.steps[i] for i in range(len(self.params))]
        self.places = [place_of(view) for view in self.views]

    def read(self, params: list[Tensor], states: States) -> tuple[list[int], list[list[float]]]:
        """The exact counts and the products of some parameters, for a checkpoint."""
        places = {id(p): i for i, p in enumerate(self.params)}
        counts, products = [], []
        for param in params:
            shown, place = states.get(param, {}).get("step"), places.get(id(param))
            count, product = 0 if shown is None else as_count(shown), [1.0, 1.0]
            if place is not None and shown is not None:
                if self.is_shown(place, shown):
                    count = int(self.counts[place])
                product = self.products[place].tolist()
            counts.append(count)
            products.append(product)
        return counts, products
