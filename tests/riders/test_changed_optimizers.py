"""Riders of optimizers whose parameters, groups or memory change, and what is refused then."""

import copy

import pytest
import torch
from lib.runs import advance, assert_same_bits, start

import lrfused


def masked(backend="reference", **options):
    """Two groups of one parameter each, both masked, after a step."""
    made = start([torch.ones(4), torch.ones(6)], backend, groups=({}, {}), **options)
    halves = {p: torch.arange(p.numel()) % 2 == 0 for p in made.params}
    made.opt.set_masks(halves)
    advance(made, [torch.ones(4), torch.ones(6)])
    return made


def test_a_parameter_that_left_keeps_its_weights():
    """A rewind does not touch it, its mask can be taken away, the next table forgets it."""
    made = masked()
    gone = made.params[1]
    del made.opt.param_groups[1]
    with torch.no_grad():
        gone.fill_(7.0)
    made.opt.rewind(made.opt.snapshot())
    assert gone.tolist() == [7.0] * 6
    assert made.opt.masks.keys() == {made.params[0]}
    made.opt.set_masks({gone: None})
    advance(made, [torch.ones(4), None])


def test_a_mask_whose_parameter_was_replaced_is_not_lost_silently():
    made = masked()
    made.params[0] = torch.nn.Parameter(torch.ones(4))
    made.opt.param_groups[0]["params"] = [made.params[0]]
    with pytest.warns(UserWarning, match=r"masks: .* \(4,\), .* dropped"):
        advance(made, [torch.ones(4), torch.ones(6)])
    advance(made, [torch.ones(4), torch.ones(6)])  # once


def test_freed_memory_is_refused():
    weight = torch.nn.Parameter(torch.ones(3))
    opt = lrfused.SGD([weight], lr=0.1, ema_decay=0.5)
    weight.grad = torch.ones(3)
    opt.step()
    weight.data.untyped_storage().resize_(0)
    with pytest.raises(ValueError, match="no memory"):
        opt.set_masks({weight: torch.ones(3, dtype=torch.bool)})
    with pytest.raises(ValueError, match="no memory"), opt.averaged():
        pass


def test_no_masks_inside_of_averaged(rng):
    made = masked(ema_decay=0.5)
    with made.opt.averaged(), pytest.raises(RuntimeError, match="averages"):
        made.opt.set_masks({made.params[0]: None})


def test_a_group_that_is_averaged_no_more_keeps_its_weights():
    """Averages that were loaded, or stayed behind, are old."""
    made = start([torch.ones(3)], "reference", ema_decay=0.5)
    advance(made, [torch.ones(3)])
    saved = made.opt.state_dict()
    values = [torch.ones(3), torch.ones(2)]
    groups = ({"ema_decay": None}, {"ema_decay": 0.5})
    other = start(values, "reference", groups=groups)
    saved["state"][1] = {k: torch.zeros(2) if x.dim() else x for k, x in saved["state"][0].items()}
    second = {**saved["param_groups"][0], "params": [1]}
    saved["param_groups"].append(second)
    with pytest.warns(UserWarning, match="ema_decay"):
        other.opt.load_state_dict(saved)
    with other.opt.averaged():
        assert_same_bits(other.params[0].detach(), torch.ones(3))
        assert_same_bits(other.params[1].detach(), torch.zeros(2))


def test_a_load_clears_masked_state(rng):
    """A dense checkpoint into an optimizer with masks."""
    dense = start([torch.ones(8)], "reference", ema_decay=0.5)
    advance(dense, [torch.ones(8)])
    made = start([torch.ones(8)], "reference", ema_decay=0.5)
    mask = torch.arange(8) % 2 == 0
    made.opt.set_masks({made.params[0]: mask})
    made.opt.load_state_dict(dense.opt.state_dict())
    for key in ("exp_avg", "exp_avg_sq", "lrfused_average"):
        tensor = made.opt.state[made.params[0]][key]
        assert not tensor[~mask].any()
        assert tensor[mask].all()


def test_masked_weights_are_no_part_of_adaptive_clipping(backend, rng):
    """Whatever somebody wrote there."""
    runs = [start([torch.randn(5, 70, generator=rng.torch)], backend, agc=0.01)]
    runs.append(start([runs[0].params[0].detach().clone()], backend, agc=0.01))
    mask = torch.rand((5, 70), generator=rng.torch) < 0.5
    for run in runs:
        run.opt.set_masks({run.params[0]: mask})
    with torch.no_grad():
        runs[0].params[0].masked_fill_(~mask, 1e6)
    gradient = torch.randn((5, 70), generator=rng.torch)
    for run in runs:
        advance(run, [gradient])
    assert_same_bits(runs[0].params[0].detach(), runs[1].params[0].detach())


def test_a_load_without_averages_keeps_their_memory():
    """A captured graph goes on writing there; the first update after it copies."""
    plain = start([torch.ones(3)], "reference")
    advance(plain, [torch.ones(3)])
    made = start([torch.ones(3)], "reference", ema_decay=0.5)
    advance(made, [torch.ones(3)])
    average = made.opt.state[made.params[0]]["lrfused_average"]
    with pytest.warns(UserWarning, match="ema_decay"):
        made.opt.load_state_dict(plain.opt.state_dict())
    assert made.opt.state[made.params[0]]["lrfused_average"] is average
    assert average.isnan().all()
    advance(made, [torch.ones(3)])
    assert_same_bits(average, made.params[0].detach())


def test_a_captured_mask_does_not_move(monkeypatch):
    made = start([torch.ones(2, 3)], "reference")
    made.opt.set_masks({made.params[0]: torch.ones(2, 3, dtype=torch.bool)})
    advance(made, [torch.ones(2, 3)])
    made.opt._engine.bookkeeping.keep_for_graphs()
    before = made.params[0].detach().clone()
    made.params[0].data = made.params[0].data.t().contiguous().t()
    with pytest.raises(RuntimeError, match=r"lrfused_mask.*put it back"):
        advance(made, [torch.ones(2, 3)])
    assert_same_bits(made.params[0].detach(), before)


def test_another_number_of_elements_needs_another_mask():
    made = masked()
    made.params[0].data = torch.ones(5)
    made.params[0].grad = None
    made.opt.state.clear()
    with pytest.raises(ValueError, match=r"lrfused_mask.*4 elements"):
        advance(made, [torch.ones(5), torch.ones(6)])
    assert made.params[0].tolist() == [1.0] * 5


def test_weights_of_another_shape_inside_of_averaged_are_said_and_the_rest_is_put_back():
    a, b = (torch.nn.Parameter(torch.ones(3)) for _ in "ab")
    opt = lrfused.SGD([a, b], lr=0.5, ema_decay=0.5)
    for _ in range(2):
        a.grad, b.grad = torch.ones(3), torch.ones(3)
        opt.step()
    with pytest.raises(RuntimeError), opt.averaged():
        a.data = a.data[:2]
    assert b.tolist() == [0.0] * 3
    a.data = torch.zeros(3)
    opt.step()


def test_zero_grads_needs_a_step_that_is_called():
    with pytest.raises(ValueError, match="zero_grads"):
        lrfused.SGD([torch.nn.Parameter(torch.ones(3))], zero_grads=True, amp_scaling=False)


def test_copies_that_mean_nothing_are_refused():
    model = torch.nn.Linear(2, 2)
    opt = lrfused.SGD(model.parameters(), lr=0.1, ema_decay=0.5)
    model(torch.ones(2)).sum().backward()
    opt.step()
    with pytest.raises(ValueError, match="source"):
        opt.copy_averages(copy.deepcopy(model), copy.deepcopy(model))
    with pytest.raises(ValueError, match="target: must be another"):
        opt.copy_averages(model, model)
    with pytest.raises(ValueError, match="meta"):
        opt.copy_averages(model, torch.nn.Linear(2, 2, device="meta"))
    with pytest.raises(TypeError, match="modules"):
        opt.copy_averages(model, list(model.parameters()))


class Sharded(torch.nn.Linear):
    """As FSDP2's modules: computes with what it gathered, until it reshards."""

    gathered = None

    def reshard(self):
        self.gathered = None

    def forward(self, x):
        if self.gathered is None:
            self.gathered = self.weight.detach().clone()
        return torch.nn.functional.linear(x, self.gathered)


def test_modules_that_gather_parameters_gather_anew():
    model = Sharded(2, 1)
    opt = lrfused.SGD(model.parameters(), lr=0.5, ema_decay=0.5)
    for _ in range(2):
        model.weight.grad, model.bias.grad = torch.ones(1, 2), torch.ones(1)
        opt.step()
    outside = model(torch.ones(2)).clone()
    with opt.averaged(model):
        want = torch.nn.functional.linear(torch.ones(2), model.weight)
        assert_same_bits(model(torch.ones(2)), want.detach())
    model.reshard()
    assert_same_bits(model(torch.ones(2)), outside)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiled_steps_average_what_the_graph_changed():
    """A parameter without a gradient that the compiled function writes before the step."""

    def trained(compiled):
        a, b = (torch.nn.Parameter(torch.ones(4)) for _ in "ab")
        opt = lrfused.SGD([a, b], lr=0.1, ema_decay=0.5)

        def change():
            with torch.no_grad():
                b.mul_(0.5)
            opt.step()

        step = torch.compile(change, backend="aot_eager") if compiled else change
        for _ in range(3):
            a.grad = torch.ones(4)
            step()
        return opt.state[b]["lrfused_average"]

    assert_same_bits(trained(True), trained(False))
