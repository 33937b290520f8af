"""The count of updates of each parameter, and the numbers that its rule carries between updates.

Counts are int64. Where the rule shows them, ``optimizer.state[p]["step"]`` is a float32 view of one
tensor that every backend writes. Carried numbers are in the state, too, where they matter, with
the count for which they hold.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lrfused.rules import UpdateRule
from lrfused.state.operands import own_operands_in
from lrfused.state.shown import Shown

Groups = list[dict[str, Any]]
States = Any  # torch's defaultdict: parameter -> {"step", "exp_avg", ...}
Numbers = tuple[float, ...]  # the carried numbers of a parameter
Recover = Callable[[int, int, bool], Numbers]  # group, count, whether operands exist
CARRIED_COUNT = "lrfused_count"
LAST_EXACT = 2**24  # float32 represents every count up to here


def is_count(shown: float) -> bool:
    """True if the value of state["step"] is a possible count, exact in float64 after one more."""
    return 0.0 <= shown < 2.0**53


def as_count(shown: Any) -> int:
    """A state's "step" as a count.

    Raises:
        ValueError: it cannot be a count.
    """
    if not is_count(float(shown)):
        raise ValueError(f"state['step']: must be a count, in [0, 2**53), got {float(shown)}")
    return int(shown)


def carried_keys(rule: UpdateRule) -> tuple[str, ...]:
    """The keys that carried numbers use in a state."""
    return (CARRIED_COUNT, *(carried.key for carried in rule.carried))


def carried_in(
    rule: UpdateRule, state: dict[str, Any], count: int, operands: list[Tensor]
) -> Numbers | None:
    """The carried numbers in a state; None if it has none for this count.

    torch's own load casts them to the parameter's dtype, and torch's steps do not update them.

    Raises:
        ValueError: they are out of range.
    """
    stored = [state.get(carried.key) for carried in rule.carried]
    if not stored or any(getattr(x, "dtype", None) != torch.float64 for x in stored):
        return None
    if rule.counts:
        at = state.get(CARRIED_COUNT)
        if getattr(at, "dtype", None) != torch.int64 or int(at) != count:  # type: ignore[arg-type]
            return None
    numbers = tuple(map(float, stored))  # type: ignore[arg-type]
    if not all(0.0 <= x <= 1.0 for x in numbers):
        names = " and ".join(carried.key for carried in rule.carried)
        raise ValueError(f"{names} must be in [0, 1], got {' and '.join(map(str, numbers))}")
    # Nonzero operands were updated, perhaps by another optimizer, which left the numbers stale.
    if not rule.counts and any(bool(operand.any()) for operand in operands):
        numbers = tuple(carried.recovered for carried in rule.carried)
    return numbers


class Moved(NamedTuple):
    """Counts of the present parameters, and what was found of foreign (loaded) counts."""

    counts: "Counts"
    largest: int  # the largest foreign count
    is_load: bool  # all counts are foreign


class Counts:
    """The counts of a fixed list of parameters; another list needs a new object.

    ``carries`` marks the parameters whose state holds the carried numbers: those of groups for
    which they matter.
    """

    def __init__(
        self, rule: UpdateRule, params: list[Tensor], carries: list[bool], device: torch.device
    ):
        self.rule, self.params, self.carries = rule, params, carries
        self.counts = torch.zeros(len(params), dtype=torch.int64, device=device)
        self.steps = torch.zeros(len(params), dtype=torch.float32, device=device)
        self.carried = self._initial(device).repeat(len(params), 1)
        self.held: list[Any] = [None] * len(params)  # the states at the last `hold`
        self._carried_keys = carried_keys(rule)
        self.renew_views()

    def _initial(self, device: torch.device) -> Tensor:
        """What a parameter without updates carries."""
        values = [carried.initial for carried in self.rule.carried]
        return torch.tensor(values, dtype=torch.float64, device="cpu").to(device)

    def set(self, index: int, count: int, carried: Numbers) -> None:
        """Set the count and the carried numbers of a parameter."""
        self.counts[index] = count
        self.steps[index] = float(count)
        self.carried[index] = torch.tensor(carried, dtype=torch.float64, device="cpu")

    def set_all(self, counts: Tensor, carried: Tensor) -> None:
        """Set those of every parameter, in place: captured graphs hold these addresses."""
        self.shown.check_memory()
        self.counts.copy_(counts)
        self.steps.copy_(counts)
        self.carried.copy_(carried.reshape(self.carried.shape))

    def moved(
        self, groups: Groups, states: States, carries: list[bool], recover: Recover
    ) -> "Moved":
        """Counts for the present parameters: ours, unless the state's were replaced or lost.

        For the same parameters the memory stays: captured graphs hold these addresses. ``recover``
        computes a group's carried numbers after a number of updates, where they are missing.

        Raises:
            ValueError: a state's count cannot be one, or was freed.
        """
        self.shown.check_memory()
        params = [(g, p) for g, group in enumerate(groups) for p in group["params"]]
        if carries == self.carries and self._are_in_place([p for _, p in params], states):
            return Moved(self, 0, False)
        new = Counts(self.rule, [p for _, p in params], carries, self.counts.device)
        places = {id(p): i for i, p in enumerate(self.params)}
        foreign, kept = [0], 0
        for index, (g, param) in enumerate(params):
            state = states.get(param, {})
            if self._is_idle(state) or (self.rule.counts and state.get("step") is None):
                continue  # no updates so far
            old = places.get(id(param))
            own = old is not None and self.is_shown(old, state)
            count = (
                int(self.counts[old]) if own else as_count(state["step"]) if self.rule.counts else 0
            )
            foreign, kept = (foreign, kept + 1) if own else ([*foreign, count], kept)
            numbers = None
            if carries[index]:  # after an interrupted bind our views are in a dictionary not held
                numbers = self._carried(old if own else None, state, count)
            if numbers is None and own:
                numbers = tuple(self.carried[old].tolist())
            if numbers is None:
                numbers = recover(g, count, bool(own_operands_in(self.rule, state)))
            new.set(index, count, numbers)
        if [id(p) for p in new.params] != [id(p) for p in self.params]:
            return Moved(new, max(foreign), len(foreign) > 1 and not kept)
        # The counts last, so that after an interrupt the others are still seen to differ.
        self.carried.copy_(new.carried)
        self.steps.copy_(new.steps)
        self.counts.copy_(new.counts)
        self.carries = carries
        self.renew_views()  # the caller may have pointed one elsewhere (.data)
        return Moved(self, max(foreign), len(foreign) > 1 and not kept)

    def show_in(self, groups: Groups, states: States) -> bool:
        """True if every state's ``step`` is our view; values are not read."""
        if not self.rule.counts:
            held = {id(p): state for p, state in zip(self.params, self.held, strict=True)}
            return all(
                state is held.get(id(param))
                for group in groups
                for param in group["params"]
                if (state := states.get(param))
            )
        ours = {
            id(p): views["step"] for p, views in zip(self.params, self.shown.views, strict=True)
        }
        return all(
            state.get("step") is ours.get(id(param))
            for group in groups
            for param in group["params"]
            if (state := states.get(param))
        )

    def _are_in_place(self, params: list[Tensor], states: States) -> bool:
        """True if the parameters are the same and their states hold our views, with our values."""
        if len(params) != len(self.params) or any(
            p is not q for p, q in zip(params, self.params, strict=True)
        ):
            return False
        idle = []
        for i, param in enumerate(params):
            if self._is_idle(states.get(param)):
                idle.append(i)
                continue
            if not self.are_shown(i, states):
                return False
        if not self.rule.counts:  # a parameter without operands carries nothing on
            return bool((self.carried[idle] == self._initial(self.carried.device)).all())
        is_known = (self.steps == self.counts.float()).all() & (self.counts[idle] == 0).all()
        return bool(is_known)

    def _is_idle(self, state: dict[str, Any] | None) -> bool:
        """It shows nothing of an update: others than counts are about operands."""
        return not state or not (self.rule.counts or own_operands_in(self.rule, state))

    def _carried(self, old: int | None, state: dict[str, Any], count: int) -> Numbers | None:
        """Carried numbers that the caller put into the state; None if the state has our views."""
        keys = [carried.key for carried in self.rule.carried]
        if old is not None and all(self.shown.is_in(state, old, key) for key in keys):
            return None
        operands = [x for _, x in own_operands_in(self.rule, state)]
        return carried_in(self.rule, state, count, operands)

    def is_shown(self, index: int, state: dict[str, Any]) -> bool:
        """True if the state's ``step`` is our count, rounded to float32.

        Where the rule shows no count: if it is the dictionary of the last `hold`.
        """
        if not self.rule.counts:
            return state is self.held[index]
        return float(state["step"]) == float(self.counts[index].float())

    def bind(self, states: States) -> None:
        """Put the views of count and carried numbers into the state of every parameter with one."""
        for index in range(len(self.params)):
            self.bind_one(index, states)

    def bind_one(self, index: int, states: States) -> None:
        """Put those of one parameter into its state, if it has one."""
        state, views = states.get(self.params[index]), self.shown.views[index]
        self.held[index] = state
        if state:
            state.update(views)
            for key in self._carried_keys:
                if key not in views:
                    state.pop(key, None)

    def are_shown(self, index: int, states: States) -> bool:
        """True if the state has the views of this parameter, as they were made."""
        state = states.get(self.params[index]) or {}
        if not self.rule.counts and (state or None) is not (self.held[index] or None):
            return False
        return self.shown.are_all_in(state, index)

    def hold(self, states: States) -> None:
        """Take these dictionaries for ours."""
        self.held = [states.get(param) for param in self.params]

    def forget_carried_views(self, states: States) -> None:
        """Loaded states took the place of those that showed the carried numbers."""
        self.carries = [False] * len(self.params)
        self.renew_views()
        self.hold(states)

    def renew_views(self) -> None:
        """Create the views for the states; a deepcopy, for one, turns views into copies."""
        columns = {"step": self.steps} if self.rule.counts else {}
        keys = [carried.key for carried in self.rule.carried]
        carried = dict(zip(keys, self.carried.unbind(1), strict=True))
        if carried and self.rule.counts:
            carried[CARRIED_COUNT] = self.counts
        self.shown = Shown(columns, carried, self.carries)

    def memory(self) -> list[Tensor]:
        """What kernels read and write; it can move, through a view in a state."""
        return [x for x in (self.counts, self.steps, self.carried) if x.numel()]

    def copies(self, states: States) -> list[dict[str, Tensor]]:
        """Copies of the views for a checkpoint, by parameter; {} for one without state.

        Copies, so that a loading optimizer does not write to our memory. Once a count exceeds
        float32's exact range, the steps are float64.
        """
        self.shown.check_memory()
        exact = self.counts.tolist() if bool((self.counts > LAST_EXACT).any()) else None
        return [self._copies(i, states.get(p) or {}, exact) for i, p in enumerate(self.params)]

    def _copies(
        self, index: int, state: dict[str, Any], exact: list[int] | None
    ) -> dict[str, Tensor]:
        keys = [key for key in self.shown.views[index] if isinstance(state.get(key), Tensor)]
        copies = {key: state[key].clone() for key in keys}
        if exact is not None and "step" in copies and self.is_shown(index, copies):
            copies["step"] = copies["step"].double().fill_(float(exact[index]))
        return copies
