"""Checkpointed: what an optimizer saves, loads, copies and goes back to."""

from typing import TYPE_CHECKING, Any

from torch.optim import Optimizer

from lrfused.checkpoint import load, save
from lrfused.engine.engine import Engine
from lrfused.memory.normal_tensors import normal_tensors
from lrfused.riders.rewind import rewind
from lrfused.riders.snapshot import Snapshot, take

if TYPE_CHECKING:
    import torch


class Checkpointed(Optimizer):
    """The part of every optimizer of this package that saves its state and brings it back."""

    _engine: Engine

    def state_dict(self) -> dict[str, Any]:
        """torch's state_dict, plus counters, loss scale, schedules and options in the groups.

        Raises:
            RuntimeError: a step on a GPU was refused and the error was not yet raised.
        """
        return save.state_dict(self._engine.bookkeeping, self, super().state_dict)

    @normal_tensors()
    def load_state_dict(self, state_dict: dict[str, Any], load_schedules: bool = False) -> None:
        """Load a checkpoint of this class, or of the torch optimizer that it replaces.

        Numbers in the groups are the checkpoint's, as in torch. The constructor's schedules and
        options take precedence over stored ones, with one warning that lists the differences and
        what is kept. The schedules' step is the stored one, or the largest ``state["step"]`` if
        that is larger or no step is stored: torch's optimizer may have continued from the
        checkpoint. (torch.optim.SGD stores no step: see :meth:`set_step`.)

        Args:
            state_dict: the result of ``state_dict``.
            load_schedules: use the stored schedules instead of the constructor's.

        Raises:
            ValueError: the checkpoint does not fit or is damaged; nothing was changed.
        """
        load.load_state_dict(self._engine.bookkeeping, self, state_dict, load_schedules)

    def snapshot(self, device: "torch.device | str | int | None" = None) -> Snapshot:
        """Copy the parameters and all that steps change, for :meth:`rewind`.

        That is: parameters, state, counts, products of betas, the step and the other persistent
        counters, the loss scale, numbers in groups without schedule or over one, the values of
        Tensor hyperparameters and of schedules' inputs. Not: schedules, options, gradients, what
        :meth:`metrics` says of the last step.

        Formula: ``snapshot.nbytes`` is, in bytes,
            sum over parameters of  elements * (bytes of its dtype + those of each state tensor)
                                    + 8 (its count) + 8 * (numbers carried from update to update)
        For float32 that is 12 bytes an element with AdamW, 8 with SGD and momentum, 8 with Lion.

        Args:
            device: where the copies are to lie, "cpu" to offload; None: each on its own device.

        Raises:
            TypeError, ValueError: ``device`` is none, or a parameter has no memory.
            RuntimeError: a CUDA graph is being captured; a step on a GPU was refused and the error
                was not yet raised.

        Example:
            >>> import torch, lrfused
            >>> weight = torch.nn.Parameter(torch.ones(3))
            >>> opt = lrfused.SGD([weight], lr=0.5)
            >>> start = opt.snapshot()
            >>> weight.grad = torch.ones(3)
            >>> opt.step()
            >>> weight.tolist(), start.step, start.nbytes
            ([0.5, 0.5, 0.5], 0, 28)
            >>> opt.rewind(start)
            >>> weight.tolist(), opt.metrics()["steps"]
            ([1.0, 1.0, 1.0], 0)

        Source: Frankle et al., Linear Mode Connectivity and the Lottery Ticket Hypothesis, ICML
        2020, arXiv 1912.05671 (rewinding to an early step).
        """
        return take(self._engine.bookkeeping, self, device)

    def rewind(self, snapshot: Snapshot) -> None:
        """Go back to a snapshot: the same steps from there give the same bits.

        Everything is written in place, so a captured CUDA graph may be replayed afterwards. Masks
        are those of now, and are applied to what was written. State
        that a parameter did not have then is as before its first update. Schedules and options are
        those of now; a schedule is overridden where that of then was, and a hyperparameter that was
        scheduled then stays as it is where it has no schedule now. A Tensor that is in a group now
        stays there and gets the value of then. Errors of steps that were not yet raised are
        forgotten.

        Args:
            snapshot: of this optimizer, or of another of its class with such groups and parameters.

        Raises:
            TypeError: it is no snapshot.
            ValueError: another optimizer, other groups, shapes or dtypes; nothing was changed.
            RuntimeError: a CUDA graph is being captured, or groups were edited after a capture;
                inside of :meth:`averaged`.

        Example: see :meth:`snapshot`.
        """
        rewind(self._engine, self, snapshot)

    def __getstate__(self) -> dict[str, Any]:
        kept = ("_engine", "_torch_defaults", "_step_supports_amp_scaling")
        return {**super().__getstate__(), **{name: self.__dict__[name] for name in kept}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "_engine" in state:
            self._engine.bookkeeping.copied(self.state)
