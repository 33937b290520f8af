"""What ``state_dict`` holds."""

import io

import pytest
import torch
from lib.contract import (
    assert_near,
    assert_same_run,
    make_parameters,
    run,
    twin,
    warmup,
)
from lib.optimizers import that_counts

import lrfused
from lrfused import schedules
from lrfused.settings.slots import Slot


def through_a_file(saved, **options):
    """Saved and loaded, with pickled objects refused."""
    file = io.BytesIO()
    torch.save(saved, file)
    file.seek(0)
    return torch.load(file, weights_only=True, **options)


def everything(rng, kind, params=None):
    """An optimizer with all that a checkpoint may have to hold."""
    gate = torch.tensor(0.5, dtype=torch.float64)
    lr = warmup() * schedules.input(gate, "gate")
    decay = schedules.from_function(lambda step: 0.1 / (step + 1), steps=5000)
    opt = kind.ours(
        params or make_parameters(rng),
        **{**kind.scheduled, "lr": lr, "weight_decay": decay},
        max_grad_norm=schedules.linear(2.0, 1.0, 10),
        clip_value=3.0,
        agc=0.5,
        loss_scale=lrfused.LossScale(init=1024.0, growth_interval=2),
        **kind.widest,
        **kind.carrying,
    )
    return opt, gate


@pytest.mark.parametrize("widest", [False, True])
def test_keys_are_torchs_and_ours_in_the_groups(rng, kind, widest):
    """state_dict has torch's keys everywhere, and in groups those that they have in memory."""
    params = make_parameters(rng)
    more = kind.widest if widest else {}
    theirs = kind.theirs(twin(params), **more)
    ours = kind.ours(params, lr=warmup(), **more, loss_scale="dynamic")
    ours.add_param_group({"params": make_parameters(rng)})
    theirs.add_param_group({"params": make_parameters(rng)})
    run(rng, 2, ours, theirs)
    a, b = ours.state_dict(), theirs.state_dict()
    assert list(a) == list(b)
    assert list(a["state"]) == list(b["state"])
    for mine, other in zip(a["state"].values(), b["state"].values(), strict=True):
        assert set(mine) == set(other) | kind.own
        assert all(isinstance(value, torch.Tensor) for value in mine.values())
    for mine, other in zip(a["param_groups"], b["param_groups"], strict=True):
        assert set(mine) == set(ours.param_groups[0]) and set(other) < set(mine)
        assert mine["params"] == other["params"]


def test_it_loads_under_weights_only(rng, kind):
    """Numbers, strings, lists and tensors only: torch.load(weights_only=True) takes it."""
    opt, _ = everything(rng, kind)
    run(rng, 3, opt)
    saved = through_a_file(opt.state_dict())
    (group,) = saved["param_groups"]
    assert group["lrfused_step"] == 3
    for key, value in group.items():
        if key.startswith("lrfused"):
            assert type(value) in (int, str, torch.Tensor), key
            assert not isinstance(value, torch.Tensor) or value.shape == (), key


def test_a_long_table_stands_once(rng, kind):
    """One sampled schedule in many groups: its table stands in one of them, the others name it."""
    values = rng.numpy.random(3000)
    sampled = schedules.from_function(lambda t: values[t], 2999)
    params = make_parameters(rng, shapes=[(2,)] * 30)
    opt = kind.ours([{"params": [p], "lr": sampled} for p in params])
    opt.param_groups.pop(0)  # the one that carried it
    texts = [group["lrfused"] for group in opt.state_dict()["param_groups"]]
    assert len(texts[0]) > 8 * len(values) and max(map(len, texts[1:])) < 2000
    other = kind.ours([{"params": [p]} for p in params[1:]], lr=1.0)
    other.load_state_dict(opt.state_dict(), load_schedules=True)
    step = int(rng.numpy.integers(3000))
    assert [row.cells[Slot.LR].schedule(step) for row in other._engine.bookkeeping.hyper.rows] == [
        values[step]
    ] * 29


@that_counts
def test_step_counts_are_clones(rng, kind, backend):
    """state["step"] in a state_dict is a copy: whoever loads it cannot count in our memory."""
    opt = kind.ours(make_parameters(rng), lr=warmup(), backend=backend)
    run(rng, 3, opt)
    saved = opt.state_dict()
    other = kind.theirs(twin(opt.param_groups[0]["params"]))
    other.load_state_dict(saved)
    for state in saved["state"].values():
        state["step"].fill_(99.0)
    run(rng, 2, other)
    assert [float(s["step"]) for s in opt.state.values()] == [3.0] * 4
    run(rng, 1, opt)
    assert [float(s["step"]) for s in opt.state.values()] == [4.0] * 4


def test_torch_continues_from_our_checkpoint(rng, kind, backend):
    """torch.optim.AdamW loads our state_dict, "lrfused" and all, and goes on as we do."""
    ours = kind.ours(make_parameters(rng), lr=0.02, **kind.widest, backend=backend)
    run(rng, 10, ours)
    theirs = kind.theirs(twin(ours.param_groups[0]["params"]))
    theirs.load_state_dict(through_a_file(ours.state_dict()))
    assert theirs.param_groups[0]["lr"] == 0.02
    run(rng, 20, ours, theirs)
    assert_near(ours, theirs)


def test_we_continue_from_torchs_checkpoint(rng, kind, backend):
    """lrfused.AdamW loads torch's state_dict and goes on as torch does."""
    theirs = kind.theirs(make_parameters(rng), lr=0.02, **kind.widest)
    run(rng, 10, theirs)
    ours = kind.ours(twin(theirs.param_groups[0]["params"]), backend=backend)
    ours.load_state_dict(through_a_file(theirs.state_dict()))
    group = ours.param_groups[0]
    assert group["lr"] == 0.02 and all(group[key] is True for key in kind.widest)
    run(rng, 20, theirs, ours)
    assert_near(ours, theirs)


@that_counts
def test_a_torch_checkpoint_sets_the_counter_to_the_largest_step(rng, kind):
    """Without "lrfused": the counter is the largest step, the loss scale its initial value."""
    params = make_parameters(rng)
    theirs = kind.theirs(twin(params))
    for step in range(6):
        for i, p in enumerate(theirs.param_groups[0]["params"]):
            p.grad = torch.ones_like(p) if (step + i) % 2 else None
        theirs.step()
    theirs.zero_grad()
    theirs.param_groups[0]["params"][1].grad = torch.ones(13)
    theirs.step()
    lr = warmup()
    ours = kind.ours(params, lr=lr, loss_scale=lrfused.LossScale(init=8.0, growth_interval=1))
    run(rng, 2, ours)
    ours.load_state_dict(theirs.state_dict())
    assert ours.metrics()["steps"] == 4 and ours.metrics()["loss_scale"] == 8.0
    assert ours.param_groups[0]["lr"] == lr(4)
    counts = [float(ours.state[p]["step"]) for p in ours.param_groups[0]["params"]]
    assert counts == [3.0, 4.0, 3.0, 3.0]


def test_saving_changes_nothing(rng, kind):
    """A run that is saved at every step equals one that is not."""
    params = make_parameters(rng)
    opt, other = everything(rng, kind, params)[0], everything(rng, kind, twin(params))[0]
    before = {k: str(v) for k, v in opt.param_groups[0].items() if "lrfused" not in k}
    opt.state_dict()
    assert before == {k: str(v) for k, v in opt.param_groups[0].items() if "lrfused" not in k}
    run(rng, 5, opt, other, after=lambda _: opt.state_dict())
    assert_same_run(opt, other)


def test_state_dict_hooks_work(rng, kind):
    """State_dict pre- and post-hooks and load_state_dict pre- and post-hooks are called as by
    torch, and the error of a hook that raises comes through."""
    opt = kind.ours(make_parameters(rng), lr=warmup())
    run(rng, 1, opt)
    calls = []
    handles = [
        opt.register_state_dict_pre_hook(lambda o: calls.append("pre")),
        opt.register_state_dict_post_hook(lambda o, s: {**s, "mine": 1}),
        opt.register_load_state_dict_pre_hook(lambda o, s: {k: s[k] for k in s if k != "mine"}),
        opt.register_load_state_dict_post_hook(lambda o: calls.append("loaded")),
    ]
    saved = opt.state_dict()
    assert saved["mine"] == 1 and saved["param_groups"][0]["lrfused"]
    opt.load_state_dict(saved)
    assert calls == ["pre", "loaded"] and opt.metrics()["steps"] == 1
    for handle in handles:
        handle.remove()

    def refuse(_):
        raise KeyError("no")

    opt.register_state_dict_pre_hook(refuse)
    with pytest.raises(KeyError, match="no"):
        opt.state_dict()
    run(rng, 1, opt)
    assert opt.metrics()["steps"] == 2
