"""The ways in which torch carries an optimizer's state: each saves a run, each loads into one.

What is saved in memory is a copy, which training on does not change; each load gets its own.
"""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import distributed
from torch.distributed import checkpoint as dcp
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.fsdp import FullOptimStateDictConfig, FullStateDictConfig, StateDictType
from torch.distributed.fsdp import FullyShardedDataParallel as FSDP

from .training import Run

FILE = "optimizer.pt"
# Arguments that scenarios give Schedules and policies.
OBJECTS = {"max_grad_norm", "loss_scale", "ema_decay"}
SHARDED = (StateDictType.SHARDED_STATE_DICT,)
# The whole state stays where it is: see limits.py.
FULL = (
    StateDictType.FULL_STATE_DICT,
    FullStateDictConfig(),
    FullOptimStateDictConfig(offload_to_cpu=False),
)


class Carrier(NamedTuple):
    """``load`` gets what ``save`` returned and the same folder."""

    save: Callable[[Run, Path], Any]
    load: Callable[[Run, Any, Path], None]


def _is_first() -> bool:
    return not distributed.is_initialized() or distributed.get_rank() == 0


def _wait() -> None:
    if distributed.is_initialized():
        distributed.barrier()


def _write(state: Any, folder: Path) -> None:
    """The first rank's, to the file that all ranks read."""
    if _is_first():
        torch.save(state, folder / FILE)
    _wait()


def _read(folder: Path, weights_only: bool = True) -> Any:
    return torch.load(folder / FILE, weights_only=weights_only)


def _get(run: Run, options: StateDictOptions) -> Any:
    return get_optimizer_state_dict(run.model, run.opt, options=options)


def _set(run: Run, state: Any, options: StateDictOptions) -> None:
    set_optimizer_state_dict(run.model, run.opt, state, options=options)


def by_torch_save() -> Carrier:
    """state_dict, torch.save, torch.load under weights_only, load_state_dict."""
    return Carrier(
        lambda run, folder: _write(run.opt.state_dict(), folder),
        lambda run, _, folder: run.opt.load_state_dict(_read(folder)),
    )


def in_memory(**options: bool) -> Carrier:
    """get_optimizer_state_dict, set_optimizer_state_dict."""
    chosen = StateDictOptions(**options)
    return Carrier(
        lambda run, _: copy.deepcopy(_get(run, chosen)),
        lambda run, saved, _: _set(run, copy.deepcopy(saved), chosen),
    )


def offloaded() -> Carrier:
    """The whole state on the first rank's CPU, in a file that all ranks read."""
    chosen = StateDictOptions(full_state_dict=True, cpu_offload=True)
    return Carrier(
        lambda run, folder: _write(_get(run, chosen), folder),
        lambda run, _, folder: _set(run, _read(folder), chosen),
    )


def broadcast() -> Carrier:
    """The whole state on the first rank, which alone has it to load."""
    chosen = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)

    def load(run: Run, saved: Any, _: Path) -> None:
        _set(run, copy.deepcopy(saved) if _is_first() else {}, chosen)

    return Carrier(lambda run, _: copy.deepcopy(_get(run, chosen)), load)


def on_disk(partial: bool = False, **options: bool) -> Carrier:
    """torch.distributed.checkpoint, into the state_dict of the optimizer that loads."""
    chosen = StateDictOptions(**options)

    def save(run: Run, folder: Path) -> None:
        state = {"optimizer": _get(run, chosen)}
        dcp.save(state, checkpoint_id=folder, no_dist=not distributed.is_initialized())

    def load(run: Run, _: Any, folder: Path) -> None:
        state = {"optimizer": _get(run, chosen)}
        planner = DefaultLoadPlanner(allow_partial_load=partial)
        alone = not distributed.is_initialized()
        dcp.load(state, checkpoint_id=folder, planner=planner, no_dist=alone)
        _set(run, state["optimizer"], chosen)

    return Carrier(save, load)


def by_fsdp1(*kind: Any) -> Carrier:
    """FSDP.optim_state_dict, FSDP.optim_state_dict_to_load, load_state_dict."""

    def save(run: Run, _: Path) -> Any:
        with FSDP.state_dict_type(run.model, *kind):
            return copy.deepcopy(FSDP.optim_state_dict(run.model, run.opt))

    def load(run: Run, saved: Any, _: Path) -> None:
        with FSDP.state_dict_type(run.model, *kind):
            mine = FSDP.optim_state_dict_to_load(run.model, run.opt, copy.deepcopy(saved))
        run.opt.load_state_dict(mine)

    return Carrier(save, load)


def consolidated() -> Carrier:
    """ZeroRedundancyOptimizer: consolidate_state_dict, state_dict, load_state_dict."""

    def save(run: Run, folder: Path) -> None:
        run.opt.consolidate_state_dict(to=0)
        _write(run.opt.state_dict() if _is_first() else None, folder)

    def load(run: Run, _: Any, folder: Path) -> None:
        # ZeRO writes the constructor's arguments as they are, if torch's groups do not have them.
        given = [make() for make in (run.scenario.options, *run.scenario.groups)]
        is_data = all(OBJECTS.isdisjoint(options) for options in given)
        run.opt.load_state_dict(_read(folder, weights_only=is_data))

    return Carrier(save, load)


CARRIERS = {
    "file": by_torch_save(),
    "memory": in_memory(),
    "flattened": in_memory(flatten_optimizer_state_dict=True),
    "full": in_memory(full_state_dict=True),
    "offloaded": offloaded(),
    "broadcast": broadcast(),
    "disk": on_disk(),
    "disk-flattened": on_disk(flatten_optimizer_state_dict=True),
    "disk-partial": on_disk(partial=True),
    "disk-flattened-partial": on_disk(partial=True, flatten_optimizer_state_dict=True),
    "fsdp-sharded": by_fsdp1(*SHARDED),
    "fsdp-full": by_fsdp1(*FULL),
    "consolidated": consolidated(),
}
