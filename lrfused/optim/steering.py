"""The methods of every optimizer that say where it is, and those that steer it between steps."""

from typing import Any

from torch import Tensor
from torch.compiler import is_dynamo_compiling
from torch.optim import Optimizer

from lrfused.engine.engine import Engine
from lrfused.optim.metrics import metrics
from lrfused.schedules.check import whole
from lrfused.schedules.expression import MAX_STEP


class Steered(Optimizer):
    """The part of every optimizer of this package for its step, its numbers and its loss scale."""

    _engine: Engine

    @property
    def known_step(self) -> int:
        """The schedules' step, as far as the host knows without waiting for the device.

        It is the step of the numbers in ``param_groups``: see :meth:`sync_mirrors`.
        """
        return self._engine.bookkeeping.hyper.known_step

    def set_step(self, step: int) -> None:
        """Set the number of completed steps, from which the schedules continue.

        For checkpoints without that number, before or after :meth:`load_state_dict`. AdamW's state
        shows counts of updates: a load sets the step to the stored one or to the largest count.
        SGD's and Lion's does not: there a step that was set before the load is kept.

        Args:
            step: completed steps, 0 <= step < 2**53.

        Raises:
            TypeError, ValueError: ``step`` is not an integer in that range.

        Example:
            >>> import torch, lrfused
            >>> from lrfused import schedules
            >>> weight = torch.nn.Parameter(torch.ones(3))
            >>> opt = lrfused.SGD([weight], lr=schedules.linear(0.5, 0.0, steps=4))
            >>> opt.set_step(2)
            >>> opt.param_groups[0]["lr"]
            0.25
        """
        step = whole("step", step, minimum=0, maximum=MAX_STEP - 1)
        self._engine.bookkeeping.set_step(self.param_groups, self.state, step)

    def sync_mirrors(self) -> None:
        """Update the scheduled numbers in ``param_groups``; waits for the device.

        A step updates them itself: on a CPU at once, on a GPU when the device's counter has
        arrived, usually one or two steps late, so that nothing waits. Replays of a captured graph
        do not update them.

        Raises:
            RuntimeError: a step on a GPU was refused and the error was not yet raised.
        """
        self._engine.bookkeeping.read(self.param_groups, self.state)

    def push(self) -> None:
        """Upload the numbers in ``param_groups``, so that the next replay of a graph sees them.

        An ordinary ``step()`` uploads them itself; a replay runs no Python. The other ways to
        control a captured step are a Tensor ``lr`` and ``schedules.input``. Like a step outside of
        a graph, it also allocates memory for 16 captures with different gradients.

        Raises:
            RuntimeError: an option was changed, or a number replaced by a Tensor: that needs an
                ordinary step and another capture.

        Example:
            >>> import torch, lrfused
            >>> weight = torch.nn.Parameter(torch.ones(3))
            >>> weight.grad = torch.ones(3)
            >>> opt = lrfused.AdamW([weight], lr=1e-3)
            >>> opt.step()  # then capture a step: with torch.cuda.graph(graph): opt.step()
            >>> opt.param_groups[0]["lr"] = 1e-4
            >>> opt.push()  # graph.replay() would step with 1e-4 now
        """
        self._engine.push(self.param_groups, self.state)

    # Loss scaling and metrics

    def scale(self, loss: Tensor) -> Tensor:
        """The loss times the present loss scale; the loss itself without loss scaling.

        Example:
            >>> import torch, lrfused
            >>> weight = torch.nn.Parameter(torch.ones(3))
            >>> opt = lrfused.AdamW([weight], loss_scale=1024.0)
            >>> opt.scale(weight.sum()).item()
            3072.0
        """
        books = self._engine.bookkeeping
        if books.options.loss_scale is None:
            return loss
        if is_dynamo_compiling():
            from lrfused.optim import torch_compile

            scale = torch_compile.loss_scale(self)
        else:
            scale = books.present_loss_scale(self.param_groups, self.state)
        # A copy: backward may come after a step has changed the scale in place.
        return loss * scale[0].clone().to(device=loss.device)

    def metrics(self) -> dict[str, Any]:
        """Metrics of the last step; waits for the device, once.

        Raises:
            RuntimeError: a step on a GPU was refused and the error was not yet raised.

        Returns:
            lr: list of floats, the value that the last step used, in the present order of groups;
                for a group that was not in that step, or before any step, the value of the next.
            grad_norm: norm of the unscaled, averaged gradients before any clip; None if
                nothing had to be measured (see ``always_measure``).
            clip_coefficient: the factor of the global clip, 1.0 if it did not clip.
            clipped_steps: completed steps in which the global clip did clip.
            skipped_steps, consecutive_skips: the number of skipped steps, and of those since the
                last completed step.
            steps: completed, non-skipped steps: the schedules' step.
            loss_scale: the present scale, None without loss scaling.
            headroom: 65504 / largest absolute scaled gradient: how far the gradients are from
                overflow in float16; None if nothing was measured.
            tiny_gradients: the other end, elements with abs(g) < tiny / all elements: the share of
                zeros and subnormal numbers among the gradients of active groups as they are in
                ``.grad``, still scaled. tiny is the smallest normal number of the gradient's dtype
                (``torch.finfo``: 2**-14 of float16, 2**-126 of bfloat16 and float32), or of that
                of the arithmetic if it is larger (float64 gradients of other parameters). So
                float32 gradients show only zeros and the subnormal numbers of float32: what became
                tiny in float16 on the way to them (autocast with float32 weights) is a normal
                number of float32. nan is not tiny. None if nothing was measured, or there is no
                element.
        """
        books, groups = self._engine.bookkeeping, self.param_groups
        scaled = books.options.loss_scale is not None
        books.note_scale_asked()
        reading = books.read(groups, self.state)
        return metrics(reading, books.lrs(groups, reading), books.measured, scaled)
