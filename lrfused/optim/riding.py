"""The methods of every optimizer for what goes along in the pass: masks and averages."""

from collections.abc import Mapping
from contextlib import AbstractContextManager

from torch import Tensor
from torch.nn import Module
from torch.optim import Optimizer

from lrfused.engine.engine import Engine
from lrfused.riders import averages
from lrfused.riders.masks import set_masks


class Riding(Optimizer):
    """The part of every optimizer of this package for what goes along in the pass."""

    _engine: Engine

    # Masks

    def set_masks(self, masks: Mapping[Tensor, Tensor | None]) -> None:
        """Set, change or take away masks; parameters that are not named keep theirs.

        Formula, for each element of a masked parameter:
            mask True:   as without a mask
            mask False:  the parameter, its moments and its average are 0, now and after each step
                         in which it has a gradient; its gradient is no part of norm, clips,
                         inf check and metrics, whatever it is
        (torch's GradScaler looks at whole gradients by itself, before the step: use ``loss_scale``
        in its place. FSDP2: call the model's ``reshard()`` before its next forward.) The masks are
        part of ``state_dict``, as bool tensors; loading sets those that it has.

        Args:
            masks: {parameter: bool tensor of its shape, on its device}; True where it is trained,
                as in torch.nn.utils.prune. None takes the mask away: the weights start at 0.

        Raises:
            TypeError: not a dictionary, or a mask is not a tensor of bools.
            ValueError: a key is not a parameter of this optimizer; another shape or device.
            RuntimeError: a step was captured in a CUDA graph, and the parameter had no mask then.
                One that was set before the capture is changed in place: replays follow it. Or a
                graph is being captured; or inside of :meth:`averaged`.

        Example:
            >>> import torch, lrfused
            >>> weight = torch.nn.Parameter(torch.tensor([3.0, 0.5]))
            >>> opt = lrfused.SGD([weight], lr=1.0)
            >>> opt.set_masks({weight: weight.abs() > 1.0})
            >>> weight.grad = torch.tensor([1.0, torch.inf])
            >>> opt.step()
            >>> weight.tolist()
            [2.0, 0.0]

        Source: Frankle and Carbin, The Lottery Ticket Hypothesis, arXiv 1803.03635.
        """
        set_masks(self._engine.bookkeeping, self, masks)

    @property
    def masks(self) -> dict[Tensor, Tensor]:
        """The present masks, {parameter: bool tensor}: copies."""
        present = [param for group in self.param_groups for param in group["params"]]
        return self._engine.bookkeeping.masks.shown(present)

    # Averages

    def averaged(self, *modules: Module) -> AbstractContextManager[None]:
        """A context in which the parameters hold their averages; afterwards they are as before.

        Buffers of ``modules`` are copied, and put back, too (those of batch normalization may be
        updated inside); FSDP2's are resharded, so that they compute with what the parameters hold.
        A parameter without an average yet stays as it is. No step inside.

        Raises:
            ValueError: there are no averages (see ``ema_decay``).
            TypeError: something is not a module.
            RuntimeError: nested, a step inside, or a CUDA graph is being captured.

        Example:
            >>> import torch, lrfused
            >>> weight = torch.nn.Parameter(torch.tensor([1.0]))
            >>> opt = lrfused.SGD([weight], lr=0.5, ema_decay=0.5)
            >>> for _ in range(2):
            ...     weight.grad = torch.ones(1)
            ...     opt.step()
            >>> with opt.averaged():
            ...     weight.item()
            0.25
            >>> weight.item()
            0.0

        Source: torch.optim.swa_utils.AveragedModel.
        """
        return averages.averaged(self._engine.bookkeeping, self, modules)

    def copy_averages(self, source: Module, target: Module) -> None:
        """Copy the averages of a model to another one, and buffers and all else as they are.

        Args:
            source: the model whose parameters this optimizer steps.
            target: a model with parameters and buffers of the same names and shapes.

        Raises:
            ValueError: there are no averages, or the models differ or are one; nothing was changed.
            RuntimeError: inside of :meth:`averaged`.

        Example:
            >>> import copy, torch, lrfused
            >>> model = torch.nn.Linear(2, 1)
            >>> opt = lrfused.AdamW(model.parameters(), ema_decay=0.999)
            >>> model(torch.ones(2)).sum().backward()
            >>> opt.step()
            >>> ema_model = copy.deepcopy(model)
            >>> opt.copy_averages(model, ema_model)
            >>> bool((ema_model.weight == model.weight).all())  # the first update copies
            True
        """
        averages.copy_averages(self._engine.bookkeeping, self, source, target)
