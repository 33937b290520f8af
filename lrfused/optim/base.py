"""FusedOptimizer: the base of all optimizers, torch's optimizer contract around the fused step."""

import sys
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import torch
from torch.compiler import is_dynamo_compiling
from torch.optim import Optimizer, optimizer

from lrfused.engine.bookkeeping import Bookkeeping
from lrfused.engine.engine import Engine
from lrfused.groups.arguments import group_arguments
from lrfused.groups.given import from_group, parameters_in, without_ours
from lrfused.groups.known_groups import KnownGroups
from lrfused.optim.arguments import OF_GROUPS, StepOptions, optimizer_options, with_defaults
from lrfused.optim.checkpoints import Checkpointed
from lrfused.optim.live import LIVE
from lrfused.optim.representation import representation
from lrfused.optim.riding import Riding
from lrfused.optim.steering import Steered
from lrfused.rules import UpdateRule
from lrfused.schedules.check import boolean


class FusedOptimizer(Riding, Checkpointed, Steered):
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
        books.expect_growth(self.param_groups)
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

    def __repr__(self) -> str:
        return representation(type(self).__name__, self._engine.bookkeeping, self.param_groups)
