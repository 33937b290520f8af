"""Damaged checkpoints: loaded as they say, or refused with nothing changed; never a crash."""

import copy
import io
import json
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from lib.optimizers import FIRST, Kind

import lrfused
from lrfused import schedules as S

from .helpers import accepting, assert_same_bits, assert_same_state, everything, normal

REFUSALS = (ValueError, TypeError, RuntimeError, KeyError)
SHAPES = [(3, 4), (), (5,), (0,), (3, 4)]
DTYPES = [torch.float32, torch.bfloat16, torch.float64, torch.float32, torch.complex64]


class Subject:
    """An optimizer in the middle of a run; the same for the same seed."""

    def __init__(self, seed: int, kind: Kind, steps: int = 3):
        self.generator = torch.Generator().manual_seed(seed)
        shapes = zip(SHAPES, DTYPES, strict=True)
        self.params = [accepting(normal(self.generator, s, d)) for s, d in shapes]
        self.gate, self.count = torch.tensor(0.5), torch.tensor(3)
        count = S.input(self.count, "count")
        counted = {"eps": 1e-9 * count} if "eps" in kind.hyperparameters else {"agc": 1.0 * count}
        self.opt = kind.ours(
            [
                {"params": self.params[:3], "lr": S.warmup_cosine(0.01, 3, 20)},
                {
                    "params": self.params[3:],
                    **kind.widest,
                    "lr": torch.tensor(0.02),
                    "ema_decay": S.linear(0.5, 1.0, 9),
                },
            ],
            weight_decay=S.input(self.gate, "gate") * S.table([0.1, 0.2, 0.3]),
            **counted,
            max_grad_norm=1.0,
            loss_scale="dynamic",
            **kind.carrying,
        )
        masked = (self.params[0], self.params[4])
        self.opt.set_masks({p: normal(self.generator, p.shape, torch.float32) > 0 for p in masked})
        for _ in range(steps):
            self.step()

    def step(self) -> None:
        """A step with random gradients."""
        self.opt.scale(torch.zeros(()))
        for p in self.params:
            p.grad = normal(self.generator, tuple(p.shape), p.dtype)
        self.opt.step()

    def now(self) -> dict[str, Any]:
        """All that loading may change."""
        state = everything(self.params, self.opt)
        state["tensors"] |= {"gate": self.gate.clone(), "count": self.count.clone()}
        return state

    def loads(self, saved: Any, load_schedules: bool = False) -> bool:
        """False if it was refused; options that differ are only warned of."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            try:
                self.opt.load_state_dict(saved, load_schedules)
            except REFUSALS as error:
                assert str(error), "an error without a message"
                return False
        return True


@pytest.fixture
def seed(rng) -> int:
    """One seed for all subjects of a test."""
    return int(rng.numpy.integers(2**31))


def check_refused(seed: int, kind: Kind, subject: Subject) -> None:
    """Everything is as in a twin that never saw the checkpoint, now and after a step."""
    twin = Subject(seed, kind)
    assert_same_state(subject.now(), twin.now())
    subject.step()
    twin.step()
    assert_same_state(subject.now(), twin.now())


def check_loaded(
    seed: int, kind: Kind, subject: Subject, saved: dict[str, Any], schedules: bool
) -> None:
    """The numbers of the checkpoint are there; saving, loading and stepping still work."""
    ids = [i for group in saved["param_groups"] for i in group["params"]]
    for i, p in zip(ids, subject.params, strict=True):
        stored, there = saved["state"].get(i, {}), subject.opt.state.get(p, {})
        if kind.cls is lrfused.SGD:  # None says that there is no buffer yet
            stored = {key: value for key, value in stored.items() if value is not None}
        assert kind.sizes.keys() & stored.keys() == kind.sizes.keys() & there.keys()
        kept = subject.opt.masks.get(p)
        for name in {*kind.sizes, "lrfused_average"} & stored.keys():
            want = stored[name]
            assert_same_bits(
                there[name], want if kept is None else want.masked_fill(~kept, 0), name
            )
        if stored and kind.counts:
            assert float(there["step"]) == float(np.float32(float(stored["step"])))
        mask = stored.get("lrfused_mask")
        assert mask is None or torch.equal(subject.opt.masks[p], mask != 0)
    for group, stored in zip(subject.opt.param_groups, saved["param_groups"], strict=True):
        for key in {"betas"} & {*kind.hyperparameters}:
            betas = stored.get(key, group[key])
            assert [float(b) for b in group[key]] == [float(b) for b in betas]
    twin = Subject(seed, kind, steps=2)
    assert twin.loads(subject.opt.state_dict(), schedules)
    for p, q in zip(twin.params, subject.params, strict=True):
        p.data.copy_(q)  # not in the checkpoint
    ours, theirs = subject.now(), twin.now()
    theirs["metrics"] = ours["metrics"]  # of the last step: not in it either
    theirs["tensors"] |= {k: v for k, v in ours["tensors"].items() if k.startswith("grad")}
    assert_same_state(theirs, ours)
    try:
        subject.step()
    except RuntimeError as error:  # a stored schedule may well be nan at this step
        assert schedules and "nothing was changed" in str(error)
    subject.opt.state_dict()


def check_load(seed: int, kind: Kind, saved: Any, schedules: bool) -> bool:
    """Whatever loading does, it does it whole; True if it did not refuse."""
    subject, original = Subject(seed, kind), copy.deepcopy(saved)
    loaded = subject.loads(saved, schedules)
    if loaded:
        check_loaded(seed, kind, subject, original, schedules)
    else:
        check_refused(seed, kind, subject)
    return loaded


@pytest.mark.parametrize("what", [5, "x", [1], b"x", {"state": {}}, {1: 2}])
def test_what_is_no_state_dict_is_refused(seed, kind, what):
    """Any other object is refused."""
    assert not check_load(seed, kind, what, schedules=False)


# Changes of the file


def damaged(rng: Any, data: bytes) -> bytes:
    """A few bytes changed, taken out or put in."""
    new = bytearray(data)
    for _ in range(rng.numpy.integers(1, 4)):
        place, kind = int(rng.numpy.integers(len(new))), rng.numpy.integers(10)
        if kind == 0:
            del new[place : place + int(rng.numpy.integers(1, 50))]
        elif kind == 1:
            new[place:place] = rng.numpy.bytes(3)
        else:
            new[place] ^= int(rng.numpy.integers(1, 256))
    return bytes(new)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_with_changed_bytes_is_loaded_or_refused_whole(rng, seed, kind, zipped):
    """torch.load refuses most files; what it returns is loaded or refused whole.

    The older format without zip has no checksums: more of its damage gets through.
    """
    file, readable = io.BytesIO(), 0
    saved = Subject(seed, kind, steps=5).opt.state_dict()
    torch.save(saved, file, _use_new_zipfile_serialization=zipped)
    for _ in range(150):
        data = damaged(rng, file.getvalue())
        try:
            saved = torch.load(io.BytesIO(data), weights_only=True)
        except Exception:
            continue
        readable += 1
        check_load(seed, kind, saved, schedules=bool(rng.numpy.integers(2)))
    assert readable > 3


# Changes of the dictionary

JUNK = [
    *(None, True, -1, 0, 3, 2**40, 2**70, 10**400, -0.5, 1e300, float("nan"), float("inf"), 1j),
    *("", "x", b"x", (), [], {}, [1, 2, 3], {"a": 1}, {0: {}}, (0.5, 0.5), "float32", set()),
    *(torch.tensor(0.25), torch.tensor(7), torch.tensor(True), torch.tensor(1j), torch.zeros(0)),
    *(torch.zeros(3, 4), torch.ones(5, dtype=torch.int64), torch.zeros(3, 4).to_sparse()),
    *(torch.zeros(3, 4, device="meta"), torch.zeros(3, 4).to(torch.float8_e4m3fn)),
    *(torch.full((3, 4), torch.nan), torch.zeros(1).expand(3, 4), torch.zeros(4, 3).t()),
]


def random_place(rng: Any, value: Any) -> tuple[Any, Any]:
    """A container inside a value, itself included, and one of its keys."""
    keys = list(value) if isinstance(value, dict) else range(len(value))
    key = keys[rng.numpy.integers(len(keys))]
    inner = value[key]
    if isinstance(inner, (dict, list)) and len(inner) and rng.numpy.random() < 0.8:
        return random_place(rng, inner)
    return value, key


def mutate(rng: Any, saved: dict[str, Any]) -> str:
    """Change one place; says how."""

    def one(choices: Any) -> Any:
        return choices[rng.numpy.integers(len(choices))]

    container, key = random_place(rng, saved)
    other, place = random_place(rng, saved)
    junk = one(JUNK)
    where = str(container)[:70]
    kind = one(("replace", "remove", "add", "copy", "swap"))
    if kind == "replace":
        container[key] = copy.deepcopy(junk)
    elif kind == "remove":
        del container[key]
    elif kind == "add" and isinstance(container, dict):
        key = one(("x", 99, None, "exp_avg", "step", "lr"))
        container[key] = copy.deepcopy(junk)
    elif kind == "copy":
        container[key] = copy.deepcopy(other[place])
    else:
        sibling = one(list(container) if isinstance(container, dict) else range(len(container)))
        container[key], container[sibling] = container[sibling], container[key]
    return f"{kind} {key!r} of {where} ({junk!r:.60})"


def mutate_text(rng: Any, saved: dict[str, Any]) -> str:
    """Change one place of what the text of a group says; says how."""
    group = saved["param_groups"][rng.numpy.integers(2)]
    text = json.loads(group["lrfused"])
    change = mutate(rng, text)
    group["lrfused"] = json.dumps(text, default=str, skipkeys=True)
    return change


@pytest.mark.parametrize("change_in", [mutate, mutate_text])
def test_a_state_dict_with_changed_places_is_loaded_or_refused_whole(rng, seed, kind, change_in):
    """Values replaced by others of any kind, taken out, put in, copied and exchanged; of the
    dictionary, and of what the text in its groups says."""
    failures, loaded, tries = [], 0, 80 if kind is FIRST else 30
    for _ in range(tries):
        saved = copy.deepcopy(Subject(seed, kind, steps=5).opt.state_dict())
        change = change_in(rng, saved)
        try:
            loaded += check_load(seed, kind, saved, schedules=bool(rng.numpy.integers(2)))
        except (Exception, pytest.fail.Exception) as error:
            failures.append(f"{change}: {type(error).__name__}: {str(error)[:200]}")
    assert not failures, f"{len(failures)} failures\n" + "\n".join(failures)
    assert tries / 15 < loaded < tries - tries / 15
