"""How often each parameter was updated, and the products of its betas so far.

The truth is int64; torch's world sees float32 copies through ``optimizer.state[p]["step"]``,
which are views of one tensor that every backend writes. Where the bias correction needs the
products, they stand in the state, too, with the count at which they hold.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lrfused.memory.operands import place_of

Groups = list[dict[str, Any]]
States = Any  # torch's defaultdict: parameter -> {"step", "exp_avg", ...}
Pair = tuple[float, float]
Recompute = Callable[[int, int], Pair]
PRODUCTS = ("lrfused_beta1_product", "lrfused_beta2_product")
PRODUCT_COUNT = "lrfused_count"
LAST_EXACT = 2**24  # float32 shows every count up to here


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


def products_in(state: dict[str, Any], count: int) -> Pair | None:
    """The products that a state carries; None if it has none of this count.

    torch's own load casts them to the parameter's dtype, and its steps go on without them.

    Raises:
        ValueError: they cannot be products of betas.
    """
    stored: list[Any] = [state.get(key) for key in (PRODUCT_COUNT, *PRODUCTS)]
    dtypes = [getattr(value, "dtype", None) for value in stored]
    if dtypes != [torch.int64, torch.float64, torch.float64] or int(stored[0]) != count:
        return None
    first, second = float(stored[1]), float(stored[2])
    if not (0.0 <= first <= 1.0 and 0.0 <= second <= 1.0):
        raise ValueError(f"products of betas must be in [0, 1], got {first} and {second}")
    return first, second


def power(beta: float, count: int) -> float:
    """The product of so many equal betas; one that cannot be counts as 0."""
    return beta**count if 0.0 <= beta < 1.0 else float(count == 0)


class Moved(NamedTuple):
    """Counts of the present parameters; what is not ours in the states was loaded by somebody."""

    counts: "Counts"
    largest: int  # of those that are not ours
    is_load: bool  # none of them is


class Counts:
    """The counts of a fixed list of parameters; another list takes a new object.

    ``carries`` says of which parameters the products travel with the state: those of groups whose
    bias correction needs them.
    """

    def __init__(self, params: list[Tensor], carries: list[bool], device: torch.device):
        self.params, self.carries = params, carries
        self.counts = torch.zeros(len(params), dtype=torch.int64, device=device)
        self.steps = torch.zeros(len(params), dtype=torch.float32, device=device)
        self.products = torch.ones((len(params), 2), dtype=torch.float64, device=device)
        self.renew_views()

    def set(self, index: int, count: int, products: Pair) -> None:
        """The count of a parameter and the products of its betas."""
        self.counts[index] = count
        self.steps[index] = float(count)
        self.products[index, 0], self.products[index, 1] = products

    def moved(
        self, groups: Groups, states: States, carries: list[bool], recompute: Recompute
    ) -> "Moved":
        """Counts for the present parameters: ours, unless those in the state were replaced or lost.

        Of the same parameters they stay where they are: captured graphs know these addresses.
        ``recompute`` gives a group's products after so many updates, where nothing else does.
        """
        params = [(g, p) for g, group in enumerate(groups) for p in group["params"]]
        if carries == self.carries and self._are_in_place([p for _, p in params], states):
            return Moved(self, 0, False)
        new = Counts([p for _, p in params], carries, self.counts.device)
        places = {id(p): i for i, p in enumerate(self.params)}
        foreign, kept = [0], 0
        for index, (g, param) in enumerate(params):
            state = states.get(param, {})
            if state.get("step") is None:
                continue  # no state, no updates so far
            old = places.get(id(param))
            own = old is not None and self.is_shown(old, state["step"])
            count = int(self.counts[old]) if own else as_count(state["step"])
            foreign, kept = (foreign, kept + 1) if own else ([*foreign, count], kept)
            carried = self._carried(old, state, count) if carries[index] else None
            if carried is None and own:
                carried = (float(self.products[old, 0]), float(self.products[old, 1]))
            new.set(index, count, recompute(g, count) if carried is None else carried)
        if [id(p) for p in new.params] != [id(p) for p in self.params]:
            return Moved(new, max(foreign), len(foreign) > 1 and not kept)
        # The counts last: after an interrupt the others would still be seen to differ.
        self.products.copy_(new.products)
        self.steps.copy_(new.steps)
        self.counts.copy_(new.counts)
        self.carries = carries
        self.renew_views()  # somebody may have pointed one elsewhere
        return Moved(self, max(foreign), len(foreign) > 1 and not kept)

    def show_in(self, groups: Groups, states: States) -> bool:
        """No state shows another count than ours; their values are not asked for."""
        ours = {id(p): views["step"] for p, views in zip(self.params, self.views, strict=True)}
        return all(
            state.get("step") is ours.get(id(param))
            for group in groups
            for param in group["params"]
            if (state := states.get(param))
        )

    def _are_in_place(self, params: list[Tensor], states: States) -> bool:
        """The same parameters, whose states show our views, with what we know."""
        if len(params) != len(self.params) or any(
            p is not q for p, q in zip(params, self.params, strict=True)
        ):
            return False
        idle = []
        for i, (param, views) in enumerate(zip(params, self.views, strict=True)):
            state = states.get(param)
            if not state:
                idle.append(i)
                continue
            if any(state.get(key) is not view for key, view in views.items()):
                return False
            if place_of(views["step"]) != self.places[i]:
                return False
        is_known = (self.steps == self.counts.float()).all() & (self.counts[idle] == 0).all()
        return bool(is_known)

    def _carried(self, old: int | None, state: dict[str, Any], count: int) -> Pair | None:
        """Products that somebody put into the state; ours, if they are still there."""
        ours = {} if old is None else self.views[old]
        if old is not None and all(state.get(key) is ours.get(key) for key in PRODUCTS):
            return None
        return products_in(state, count)

    def is_shown(self, index: int, shown: Any) -> bool:
        """Nobody wrote another count over ours, which float32 shows rounded."""
        return float(shown) == float(self.counts[index].float())

    def bind(self, states: States) -> None:
        """Let the state of every parameter that has one show its count, and products."""
        for param, views in zip(self.params, self.views, strict=True):
            state = states.get(param)
            if state:
                state.update(views)
                for key in (PRODUCT_COUNT, *PRODUCTS):
                    if key not in views:
                        state.pop(key, None)

    def renew_views(self) -> None:
        """What the state will show; after a deepcopy, say, the old ones may be views no more."""
        self.views = [self._views(i) for i in range(len(self.params))]
        self.places = [place_of(views["step"]) for views in self.views]

    def _views(self, i: int) -> dict[str, Tensor]:
        views = {"step": self.steps[i]}
        if self.carries[i]:
            views |= zip(PRODUCTS, self.products[i].unbind(), strict=True)
            views[PRODUCT_COUNT] = self.counts[i]
        return views

    def copies(self, states: States) -> list[dict[str, Tensor]]:
        """What a checkpoint gets of the views of each parameter with state, {} of others.

        Whoever loads it must not count in our memory. What float32 cannot show is a float64.
        """
        exact = self.counts.tolist() if bool((self.counts > LAST_EXACT).any()) else None
        return [self._copies(i, states.get(p) or {}, exact) for i, p in enumerate(self.params)]

    def _copies(
        self, index: int, state: dict[str, Any], exact: list[int] | None
    ) -> dict[str, Tensor]:
        keys = [key for key in self.views[index] if isinstance(state.get(key), Tensor)]
        copies = {key: state[key].clone() for key in keys}
        if exact is not None and "step" in copies and self.is_shown(index, copies["step"]):
            copies["step"] = copies["step"].double().fill_(float(exact[index]))
        return copies
