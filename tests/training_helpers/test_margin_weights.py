"""losses.margin_weights against its formula, sample by sample in Python's float64."""

import math

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode

import lrfused
from lrfused import losses

EVERY = {"temperature": 0.75, "floor": 0.125}


def formula(margins, temperature=1.0, floor=0.0):
    scores = [floor + (1 - floor) / (1 + math.exp(-m / temperature)) for m in margins]
    return [score * len(scores) / math.fsum(scores) for score in scores]


def margin(row, target):
    return row[target] - max(z for k, z in enumerate(row) if k != target)


def random_classes(rng, shape, classes):
    targets = torch.randint(classes, shape, generator=rng.torch)
    logits = 3 * torch.randn(*shape, classes, generator=rng.torch, dtype=torch.float64)
    return logits, targets


@pytest.mark.parametrize("options", [{}, {"temperature": 0.25}, {"floor": 0.5}, EVERY])
@pytest.mark.parametrize("classes", [2, 3, 17])
def test_several_classes(rng, options, classes):
    logits, targets = random_classes(rng, (37,), classes)
    margins = map(margin, logits.tolist(), targets.tolist())
    got = losses.margin_weights(logits, targets, **options)
    assert got.dtype == torch.float64 and got.shape == (37,)
    assert got.tolist() == pytest.approx(formula(margins, **options), rel=1e-12)


@pytest.mark.parametrize("options", [{}, EVERY])
@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.float32, torch.uint8])
def test_one_logit(rng, options, dtype):
    logits = 3 * torch.randn(5, 7, generator=rng.torch, dtype=torch.float64)
    targets = torch.randint(2, (5, 7), generator=rng.torch)
    signed = (logits * (2 * targets - 1)).flatten().tolist()
    got = losses.margin_weights(logits, targets.to(dtype), **options)
    assert got.shape == (5, 7)
    assert got.flatten().tolist() == pytest.approx(formula(signed, **options), rel=1e-12)


def test_one_logit_is_two_classes(rng):
    """A logit is the difference of two."""
    logits, targets = random_classes(rng, (23,), 2)
    got = losses.margin_weights(logits[:, 1] - logits[:, 0], targets)
    torch.testing.assert_close(got, losses.margin_weights(logits, targets), rtol=1e-13, atol=0.0)


def test_classes_stand_in_the_second_dimension(rng):
    """As for cross_entropy: (N, K, ...), or (K,) for one sample."""
    logits, targets = random_classes(rng, (3, 4, 5), 6)
    got = losses.margin_weights(logits.movedim(-1, 1), targets)
    flat = losses.margin_weights(logits.reshape(60, 6), targets.flatten())
    assert torch.equal(got.flatten(), flat)
    assert cross_entropy(logits.movedim(-1, 1), targets, reduction="none").shape == got.shape
    assert losses.margin_weights(torch.ones(4), torch.tensor(2)).tolist() == 1.0


@pytest.mark.parametrize("index", [-100, 2, 9])
def test_ignored_samples(rng, index):
    """They have no weight, and no part in the mean: of the others it is 1."""
    logits, targets = random_classes(rng, (41,), 5)
    ignored = torch.rand(41, generator=rng.torch) < 0.4
    ignored[3], ignored[4] = True, False
    targets[targets == index] = 0
    kept = losses.margin_weights(logits[~ignored], targets[~ignored], **EVERY)
    targets[ignored] = index
    logits[ignored] = math.nan
    got = losses.margin_weights(logits, targets, ignore_index=index, **EVERY)
    assert (got[ignored] == 0.0).all()
    torch.testing.assert_close(got[~ignored], kept, rtol=1e-14, atol=0.0)
    assert got.sum().item() == pytest.approx((~ignored).sum().item(), rel=1e-13)


def test_ignored_samples_of_one_logit():
    got = losses.margin_weights(torch.tensor([2.0, math.nan, 2.0]), torch.tensor([1, -100, 1]))
    assert got.tolist() == [1.0, 0.0, 1.0]


def test_no_samples_that_count(rng):
    logits, targets = random_classes(rng, (5,), 3)
    assert losses.margin_weights(logits, torch.full_like(targets, -100)).tolist() == [0.0] * 5
    assert losses.margin_weights(logits[:0], targets[:0]).shape == (0,)


def test_only_hard_samples_still_have_the_mean_one():
    """Where every sigmoid is 0 in float32."""
    logits = torch.tensor([[-500.0, 0.0], [-501.0, 0.0], [-800.0, 0.0]])
    got = losses.margin_weights(logits, torch.zeros(3, dtype=torch.int64))
    first = 3 / (1 + math.exp(-1.0))
    assert got.tolist() == pytest.approx([first, 3 - first, 0.0], rel=1e-5)


def test_masked_classes():
    """A class that is excluded by -inf: only it beside the target is an infinite margin."""
    logits = torch.tensor([[1.0, -math.inf], [0.0, 0.0]])
    got = losses.margin_weights(logits, torch.tensor([0, 0]))
    assert got.tolist() == pytest.approx([2 * 1.0 / 1.5, 2 * 0.5 / 1.5], rel=1e-6)


def test_a_nan_is_not_hidden():
    logits = torch.tensor([[1.0, math.nan], [0.0, 0.0]])
    assert losses.margin_weights(logits, torch.tensor([0, 0])).isnan().all()
    for row in ([math.inf, math.inf], [-math.inf, -math.inf]):
        logits = torch.tensor([row, [0.0, 0.0]])
        assert losses.margin_weights(logits, torch.tensor([0, 0])).isnan().all()
    hopeless = torch.tensor([[-math.inf, 0.0], [-math.inf, 1.0]])
    assert losses.margin_weights(hopeless, torch.tensor([0, 0])).isnan().all()
    assert losses.margin_weights(hopeless, torch.tensor([0, 0]), floor=0.5).tolist() == [1.0, 1.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_other_dtypes_are_computed_in_float32(rng, dtype):
    logits, targets = random_classes(rng, (37,), 5)
    logits = logits.to(dtype)
    got = losses.margin_weights(logits, targets, **EVERY)
    assert got.dtype == torch.float32
    margins = map(margin, logits.double().tolist(), targets.tolist())
    assert got.tolist() == pytest.approx(formula(margins, **EVERY), rel=1e-5)


def test_the_weights_have_no_gradient(rng):
    """The gradient of the weighted loss is that of the loss, sample by sample times the weight."""
    logits, targets = random_classes(rng, (11,), 4)
    logits.requires_grad_()
    weights = losses.margin_weights(logits, targets)
    assert not weights.requires_grad
    (weights * cross_entropy(logits, targets, reduction="none")).sum().backward()
    one_hot = torch.nn.functional.one_hot(targets, 4)
    wanted = weights[:, None] * (logits.detach().softmax(1) - one_hot)
    torch.testing.assert_close(logits.grad, wanted, rtol=1e-12, atol=1e-14)


def test_the_weights_are_an_lr_for_every_sample(rng):
    """One step of SGD: the sum over samples of lr * weight * gradient of the sample."""
    x = torch.randn(13, 3, generator=rng.torch, dtype=torch.float64)
    y = torch.randint(2, (13,), generator=rng.torch).double()
    theta = torch.nn.Parameter(torch.randn(3, generator=rng.torch, dtype=torch.float64))
    before = theta.detach().clone()
    logits = x @ theta
    weights = losses.margin_weights(logits, y)
    opt = lrfused.SGD([theta], lr=0.5)
    (weights * binary_cross_entropy_with_logits(logits, y, reduction="none")).mean().backward()
    opt.step()
    lrs = 0.5 * torch.tensor(formula(((2 * y - 1) * logits).tolist()), dtype=torch.float64)
    gradients = ((logits.sigmoid() - y)[:, None] * x).detach()
    wanted = before - (lrs[:, None] * gradients).mean(0)
    torch.testing.assert_close(theta.detach(), wanted, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("shape", [(5, 3), (5,)])
def test_other_devices_are_not_waited_for(shape):
    """On the meta device there is no value to wait for."""
    targets = torch.zeros(5, dtype=torch.int64, device="meta")
    got = losses.margin_weights(torch.zeros(shape, device="meta"), targets, **EVERY)
    assert got.shape == (5,) and got.device.type == "meta"


class Copies(TorchDispatchMode):
    """The operations that copy a number of the host, for which a GPU would be waited for."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.overloadpacket in (torch.ops.aten.lift_fresh, torch.ops.aten.copy_):
            self.found.append(function)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("shape", [(5, 3), (5,)])
def test_no_number_is_copied_from_the_host(shape):
    with Copies() as copies:
        losses.margin_weights(torch.zeros(shape), torch.zeros(5, dtype=torch.int64), **EVERY)
    assert not copies.found


@pytest.mark.parametrize("wrong", [7.0, 0.5, math.nan])
def test_a_target_of_one_logit_that_is_no_class_is_nan_elsewhere(monkeypatch, wrong):
    """Where it is not refused: as on a device that is not waited for."""
    monkeypatch.setattr(losses, "_refuse_no_class", lambda *arguments: None)
    targets = torch.tensor([1.0, 0.0, wrong])
    assert losses.margin_weights(torch.ones(3), targets).isnan().all()


@pytest.mark.parametrize(("dtype", "index"), [(torch.uint8, -255), (torch.int8, 257)])
def test_an_index_beyond_the_dtype_ignores_nothing(dtype, index):
    """-255 in uint8 and 257 in int8 would be 1."""
    targets = torch.tensor([1, 0, 1], dtype=dtype)
    got = losses.margin_weights(torch.ones(3), targets, ignore_index=index)
    assert got.tolist() == pytest.approx(formula([1, -1, 1]), rel=1e-6)


def test_easier_samples_weigh_more(rng):
    logits, targets = random_classes(rng, (50,), 4)
    margins = torch.tensor([margin(*pair) for pair in zip(logits.tolist(), targets, strict=True)])
    order = margins.argsort()
    assert losses.margin_weights(logits, targets)[order].diff().gt(0).all()
    assert losses.margin_weights(logits, targets, temperature=1e9).sub(1).abs().max() < 1e-7


TWO = torch.zeros(4, 2)
ZEROS = torch.zeros(4, dtype=torch.int64)


@pytest.mark.parametrize(
    ("logits", "targets", "options", "message"),
    [
        (TWO, ZEROS, {"temperature": 0.0}, "^temperature: must be greater than 0"),
        (TWO, ZEROS, {"temperature": math.nan}, "^temperature: must be finite"),
        (TWO, ZEROS, {"floor": 1.0}, r"^floor: must be in \[0, 1\)"),
        (TWO, ZEROS, {"floor": -0.1}, r"^floor: must be in \[0, 1\)"),
        (TWO, ZEROS, {"floor": math.inf}, "^floor: must be finite"),
        (TWO, ZEROS[:3], {}, r"^targets: must have the shape .* got \(3,\)"),
        (TWO.T, ZEROS, {}, "^targets: must have the shape"),
        (torch.tensor(1.0), ZEROS, {}, "^targets: must have the shape"),
        (torch.zeros(4, 1), ZEROS, {}, "^logits: must have at least 2 classes, got 1; one logit"),
        (TWO, ZEROS.to("meta"), {}, r"^targets: must be on the device of the logits \(cpu\)"),
        (TWO, ZEROS + 2, {}, "^targets: must be from 0 to 1 or ignore_index, got 2"),
        (TWO, ZEROS - 1, {}, "^targets: must be from 0 to 1 or ignore_index, got -1"),
        (TWO[:, 0], ZEROS + 2, {}, "^targets: must be 0 or 1 or ignore_index, got 2"),
        (TWO[:, 0], ZEROS + 0.5, {}, "^targets: must be 0 or 1 or ignore_index, got 0.5"),
        (TWO[:, 0], ZEROS * math.nan, {}, "^targets: must be 0 or 1 or ignore_index, got nan"),
    ],
)
def test_wrong_values(logits, targets, options, message):
    with pytest.raises(ValueError, match=message):
        losses.margin_weights(logits, targets, **options)


@pytest.mark.parametrize(
    ("logits", "targets", "options", "name"),
    [
        (TWO.tolist(), ZEROS, {}, "logits"),
        (TWO.long(), ZEROS, {}, "logits"),
        (TWO.to(torch.complex64), ZEROS, {}, "logits"),
        (TWO, 0, {}, "targets"),
        (TWO, ZEROS.int(), {}, "targets"),
        (TWO, ZEROS.float(), {}, "targets"),
        (TWO, ZEROS, {"temperature": "1"}, "temperature"),
        (TWO, ZEROS, {"floor": None}, "floor"),
        (TWO, ZEROS, {"ignore_index": 1.0}, "ignore_index"),
    ],
)
def test_wrong_types(logits, targets, options, name):
    with pytest.raises(TypeError, match=f"^{name}: must be"):
        losses.margin_weights(logits, targets, **options)
