"""FusedOptimizer: the base of all optimizers, torch's optimizer contract around the fused step."""

import sys
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling
from torch.optim import Optimizer, optimizer

from lrfused.engine.bookkeeping import Bookkeeping
from lrfused.engine.engine import Engine
from lrfused.groups.arguments import group_arguments
from lrfused.groups.known_groups import KnownGroups, from_group, parameters_in, without_ours
from lrfused.optim.arguments import OF_GROUPS, StepOptions, optimizer_options, with_defaults
from lrfused.optim.checkpoints import Checkpointed
from lrfused.optim.live import LIVE
from lrfused.optim.metrics import metrics
from lrfused.optim.representation import representation
from lrfused.optim.riding import Riding
from lrfused.rules import UpdateRule
from lrfused.schedules.check import boolean, whole
from lrfused.schedules.expression import MAX_STEP


class FusedOptimizer(Riding, Checkpointed):
    """The base class of this package's optimizers; construct one of its subclasses.

    Order of operations on a gradient: unscale and average, value clip, adaptive clip, global norm
    clip, then the update of the optimizer.

    Args:
        max_grad_norm: threshold of the global norm clip over all groups, >= 0, or None.
        norm_type: 2.0 or infinity, of the global norm.
        clip_value: elements of the gradient are clipped to +-clip_value, >= 0, or None.
        agc: threshold of adaptive gradient clipping, >= 0, or None.
        agc_by: "unit" (each output unit: the first dimension; arXiv 2102.06171) or "tensor".
        ema_decay: keep averages of the weights, a <- decay * a + (1 - decay) * p after each update,
            in [0, 1], or None; see :meth:`averaged`. The first update copies, and so does one of
            an element whose average is nan. Of 16-bit parameters they are float32. Parameters that
            do not move are averaged, too, and so have a whole state (a group with ema_decay=None
            leaves some out); skipped steps and steps without any gradient change nothing.
        ema_update_every: the averages are updated at steps 0, n, 2 n, ... (completed ones), n >= 1.
        masks: {parameter: bool tensor}, or None; see :meth:`set_masks`.
        nonfinite: what to do if a gradient is inf or nan: "propagate" (as in torch), "skip" the
            step or "raise". With a loss scale the step is always skipped.
        accumulation_steps: gradients are sums over this many micro-batches and are averaged.
        loss_scale: None, a number, "dynamic" or a :class:`LossScale`; see :meth:`scale`.
        advance_schedule_on_skip: count skipped steps in the schedule's step.
        peak_lr: the lr at which weight_decay_mode="lr_ratio" applies the full weight_decay, > 0;
            defaults to lr if that is a number.
        start_step: skip this group until ``start_step`` steps have completed.
        write_grads: write the clipped, unscaled gradients back to ``.grad``.
        zero_grads: fill all gradients with zeros after the update, also in skipped steps (not in
            those that raise); not with ``amp_scaling=False``, where a GradScaler skips the call.
        always_measure: measure the gradients for the metrics even where nothing needs it.
        sharded: whether each rank holds only a part of every parameter. None: as the parameters
            indicate (DTensor, FullyShardedDataParallel); False: every rank has all of them anyway
            (NO_SHARD, one rank). Options that need all gradients are refused if they are sharded.
        amp_scaling: let torch's GradScaler pass its scale to the step instead of unscaling.
        backend: "reference", "cpu", "triton" or "cuda"; "auto" takes the best available one for
            the parameters' device (see :func:`lrfused.info`; the environment variable
            LRFUSED_BACKEND overrides it); or a dictionary {device type: name}.

    Thresholds and ema_decay may be numbers, Tensors or Schedules. clip_value, agc, agc_by,
    ema_decay, ema_update_every, peak_lr and start_step may also be set in a group.
    """

    rule: ClassVar[UpdateRule]

    def __new__(cls, *_: Any, **__: Any) -> "FusedOptimizer":
        self = super().__new__(cls)
        LIVE[id(self)] = self
        return self

    def _start(
        self,
        params: Iterable[Any],
        hyperparameters: dict[str, Any],
        switches: dict[str, bool],
        choices: dict[str, str],
        of_torch: dict[str, Any],
        fused: bool | None,
        given: StepOptions,
    ) -> None:
        """Check all arguments, then run the constructor of the torch class that this replaces."""
        options = with_defaults(type(self).__name__, given)
        for name in switches:
            boolean(name, switches[name])
        boolean("amp_scaling", options["amp_scaling"])
        if of_torch.get("differentiable"):
            raise ValueError("differentiable: must be False, the fused step has no gradient")
        defaults = {**hyperparameters, **switches, **choices}
        defaults |= {name: options[name] for name in OF_GROUPS}
        of_optimizer = optimizer_options(options)
        known = KnownGroups(self.rule, defaults, options["max_grad_norm"], of_optimizer)
        checked = known.checked({})
        self._engine = Engine(Bookkeeping(of_optimizer, known), options["backend"])
        self._start_torch(params, {**checked.shown, **switches, **of_torch})
        if fused is not None:
            self.defaults["fused"] = fused
            for group in self.param_groups:
                group["fused"] = fused
        self._torch_defaults = dict(self.defaults)
        self._step_supports_amp_scaling = options["amp_scaling"]
        if options["masks"] is not None:
            self.set_masks(options["masks"])

    def _start_torch(self, params: Iterable[Any], defaults: dict[str, Any]) -> None:
        """Run the next constructor in the MRO: torch's particular optimizer, or `Optimizer`."""
        start: Any = super().__init__
        if start.__func__ is Optimizer.__init__:
            start(params, defaults)
        else:
            start(params, **defaults)

    # Groups

    def _changed_defaults(self) -> dict[str, Any]:
        """The entries of ``defaults`` that the caller changed; they apply to later groups."""
        before = self.__dict__.get("_torch_defaults", {})
        return {
            name: self.defaults[name]
            for name in {slot.key for slot in self.rule.hyperparameters}
            if name in before and self.defaults[name] is not before[name]
        }

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; besides torch's keys it may hold Schedules and this class's options.

        Raises:
            RuntimeError: a step was captured in a CUDA graph, which fixes the groups.
        """
        books = self._engine.bookkeeping
        if books.is_captured:
            raise RuntimeError(
                "param_group: a step was captured in a CUDA graph, so no group can be added; add "
                "all groups before (with start_step=k they may wait)"
            )
        if not isinstance(param_group, dict):
            raise TypeError(f"param_group: must be a dict, got {type(param_group).__name__}")
        books.arrange(self.param_groups)
        param_group = {**param_group, "params": parameters_in(param_group)}
        known = books.known
        own = from_group(self.rule, param_group, known.settings_of(param_group), known.tables)
        checked = known.checked({**self._changed_defaults(), **own})
        known.check_params(checked, param_group["params"])
        hidden = group_arguments(self.rule)
        others = {k: v for k, v in param_group.items() if k not in hidden}
        super().add_param_group({**without_ours(others), **checked.shown})
        self._engine.add_group(self.param_groups[-1], checked)

    # The step

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One fused step; returns the closure's loss, if there is a closure.

        Raises:
            RuntimeError: a gradient is not finite with nonfinite="raise", or a scheduled
                hyperparameter is not usable; the message names group and step.
            TypeError, ValueError: a parameter or gradient cannot be used.

        In all these cases parameters, state and counters are unchanged. ``torch.compile`` treats
        the step as one operator; a changed number in ``param_groups`` causes no recompilation.
        """
        if is_dynamo_compiling():
            from lrfused.optim import torch_compile

            return torch_compile.step(
                self, closure, has_hooks=type(self).step is FusedOptimizer.step
            )
        if not self._is_observed():
            return self._step(closure)
        return self._step_with_hooks(**({} if closure is None else {"closure": closure}))

    # torch wraps an unmarked `step`, and the wrapper costs as much as a small model's step.
    step.hooked = True  # type: ignore[attr-defined]

    def _is_observed(self) -> bool:
        """True with a hook or a profiler; a subclass with its own step is wrapped by torch."""
        return type(self).step is FusedOptimizer.step and bool(
            self._optimizer_step_pre_hooks
            or self._optimizer_step_post_hooks
            or optimizer._global_optimizer_pre_hooks
            or optimizer._global_optimizer_post_hooks
            or torch._C._autograd._profiler_enabled()
        )

    def _step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._update()
        return loss

    def _update(self) -> None:
        """The step without closure and hooks."""
        grad_scale, found_inf = self.__dict__.get("grad_scale"), self.__dict__.get("found_inf")
        compiler = sys.modules.get("lrfused.optim.torch_compile")
        if compiler is None:
            self._engine.step(self.param_groups, self.state, grad_scale, found_inf)
        else:  # after a graph break Dynamo would try to trace the engine
            args = (self.param_groups, self.state, grad_scale, found_inf)
            compiler.untraced(self._engine.step, *args)

    _step_with_hooks = torch.optim.Optimizer.profile_hook_step(_step)

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

    def __repr__(self) -> str:
        return representation(type(self).__name__, self._engine.bookkeeping, self.param_groups)
