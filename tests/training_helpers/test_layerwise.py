"""groups.layerwise: every parameter once, at its depth, with the lr of that depth."""

import math

import pytest
import torch
from torch import nn

import lrfused
from lrfused import groups
from lrfused import schedules as S


class Transformer(nn.Module):
    """The shape of GPT-2 and BERT: embeddings, blocks, a norm, a head that may be tied."""

    def __init__(self, layers=3, tied=False):
        super().__init__()
        self.position = nn.Parameter(torch.ones(4, 8))
        self.encoder = nn.Module()
        self.encoder.embed = nn.Embedding(10, 8)
        self.encoder.layer = nn.ModuleList(
            nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8)) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 10, bias=False)
        if tied:
            self.head.weight = self.encoder.embed.weight


class Residual(nn.Module):
    """The shape of a ResNet: a stem, stages of blocks, a head."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 1)
        self.layer1 = nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 1))
        self.between = nn.BatchNorm2d(4)
        self.layer2 = nn.Sequential(nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1))
        self.fc = nn.Linear(4, 2)


def depth_of(model, **options):
    """The depth of every parameter by its first name; each is in exactly one group."""
    found = {}
    for group in groups.layerwise(model, 0.1, named=True, **options):
        for name, param in group["params"]:
            assert name not in found and param is model.get_parameter(name)
            found[name] = group["depth"]
    assert found.keys() == dict(model.named_parameters()).keys()
    return found


def test_embedding_blocks_and_head():
    depths = depth_of(Transformer())
    assert depths["position"] == depths["encoder.embed.weight"] == 0
    assert [depths[f"encoder.layer.{i}.{part}.weight"] for i in range(3) for part in (0, 1)] == [
        *(1, 1, 2, 2, 3, 3)
    ]
    assert depths["norm.bias"] == depths["head.weight"] == 4


def test_a_tied_head_has_the_depth_of_the_embedding():
    depths = depth_of(Transformer(tied=True))
    assert "head.weight" not in depths
    assert depths["encoder.embed.weight"] == 0 and depths["norm.weight"] == 4


def test_blocks_that_share_their_weights():
    """The last block has no parameters of its own, but the norm still comes after it."""
    model = Transformer()
    model.encoder.layer[2][0].weight = model.encoder.layer[0][0].weight
    model.encoder.layer[2][0].bias = model.encoder.layer[0][0].bias
    model.encoder.layer[2][1] = model.encoder.layer[1][1]
    depths = depth_of(model)
    assert depths["encoder.layer.1.1.weight"] == 2
    assert depths["norm.weight"] == 3


@pytest.mark.parametrize("length", [1, 2, 5])
def test_layers_in_a_row(length):
    """What has no parameters is no block; there is no embedding and no head."""
    model = nn.Sequential(*[m for _ in range(length) for m in (nn.ReLU(), nn.Linear(3, 3))])
    assert list(depth_of(model).values()) == [d for d in range(length) for _ in "wb"]


def test_a_last_block_without_parameters_is_passed():
    """The head does not belong to the block before it."""
    model = nn.Module()
    model.blocks = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.ReLU())
    model.head = nn.Linear(3, 2, bias=False)
    assert list(depth_of(model).values()) == [0, 0, 1, 1, 2]


def test_the_outer_container_wins_among_equals():
    inner = [nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)) for _ in range(2)]
    assert sorted(set(depth_of(nn.Sequential(*inner)).values())) == [0, 1]


@pytest.mark.parametrize("blocks", [["layer1", "layer2"], ("layer1", "layer2")])
def test_stages_by_name(blocks):
    """What lies between two stages belongs to the block before it."""
    depths = depth_of(Residual(), blocks=blocks)
    of_weights = {name: d for name, d in depths.items() if name.endswith("weight")}
    assert of_weights == {
        **{"stem.weight": 0, "layer1.0.weight": 1, "layer1.2.weight": 2, "between.weight": 2},
        **{"layer2.0.weight": 3, "layer2.1.weight": 4, "fc.weight": 5},
    }
    assert sorted(set(depth_of(Residual(), blocks="layer2").values())) == [0, 1, 2, 3]


def test_stages_in_another_order_than_the_models():
    """Depths follow the order that is given; what comes after the last block is the head."""
    depths = depth_of(Residual(), blocks=["layer2", "layer1"])
    of_weights = {name: d for name, d in depths.items() if name.endswith("weight")}
    assert of_weights == {
        **{"stem.weight": 0, "layer2.0.weight": 1, "layer2.1.weight": 2, "layer1.0.weight": 3},
        **{"layer1.2.weight": 4, "between.weight": 5, "fc.weight": 5},
    }


def test_depths_by_a_function_may_have_gaps():
    found = groups.layerwise(
        Residual(), [0.1, 0.2, 0.3, 0.4], depth=lambda name: 3 if name.startswith("fc") else 1
    )
    assert [(g["depth"], g["lr"], len(g["params"])) for g in found] == [(1, 0.2, 12), (3, 0.4, 2)]


@pytest.mark.parametrize("layer_decay", [0.75, 1.0, 1.5])
def test_layer_decay_of_a_schedule(layer_decay):
    lr = S.warmup_cosine(0.3, 5, 40)
    found = groups.layerwise(Transformer(), lr, layer_decay=layer_decay)
    assert [group["depth"] for group in found] == [0, 1, 2, 3, 4]
    for group in found:
        wanted = lr.values(range(50)) * layer_decay ** (4 - group["depth"])
        assert group["lr"].values(range(50)) == pytest.approx(wanted, rel=1e-15)
    assert len({group["lr"].program.shape for group in found}) == 1


def test_layer_decay_of_numbers():
    found = groups.layerwise(Transformer(), [0.1, 0.2, 0.3, 0.4, 0.5], layer_decay=0.5)
    wanted = [0.1 / 16, 0.2 / 8, 0.3 / 4, 0.4 / 2, 0.5]
    assert [group["lr"] for group in found] == pytest.approx(wanted, rel=1e-15)
    assert [group["lr"] for group in groups.layerwise(Transformer(), 0.1)] == [0.1] * 5


def test_a_function_of_depth_gives_every_schedule():
    asked = []

    def lr(depth, deepest):
        asked.append((depth, deepest))
        return S.exponential(0.1, 0.01, steps=10 * (depth + 1))

    found = groups.layerwise(Transformer(), lr)
    assert asked == [(d, 4) for d in range(5)]
    assert [g["lr"] for g in found] == [S.exponential(0.1, 0.01, 10 * (d + 1)) for d in range(5)]


def test_vectors_without_weight_decay():
    model = Transformer()
    found = groups.layerwise(model, 0.1, exclude_1d=True, named=True)
    assert [(g["depth"], g.get("weight_decay")) for g in found] == [
        *((0, None), (1, None), (1, 0.0), (2, None), (2, 0.0), (3, None), (3, 0.0)),
        *((4, None), (4, 0.0)),
    ]
    for group in found:
        assert all((p.ndim <= 1) == ("weight_decay" in group) for _, p in group["params"])
    assert sum(len(g["params"]) for g in found) == len(list(model.parameters()))


@pytest.mark.parametrize("cls", [lrfused.AdamW, lrfused.SGD, lrfused.Lion])
@pytest.mark.parametrize("named", [False, True])
def test_every_optimizer_steps_at_the_lr_of_the_depth(rng, cls, named):
    """From the weights: decay without gradient is 1 - lr * weight_decay, and none for vectors."""
    model = Transformer().double()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    lr = S.linear(0.25, 0.125, steps=2)
    found = groups.layerwise(model, lr, layer_decay=0.5, exclude_1d=True, named=named)
    opt = cls(found, weight_decay=0.5)
    for param in model.parameters():
        param.grad = torch.zeros_like(param)
    for _ in range(2):
        opt.step()
    depths = depth_of(model)
    for name, param in model.named_parameters():
        factors = (1 - lr(t) * 0.5 ** (4 - depths[name]) * 0.5 for t in range(2))
        wanted = before[name] * (math.prod(factors) if param.ndim > 1 else 1.0)
        torch.testing.assert_close(param.detach(), wanted, rtol=1e-14, atol=0.0)
    assert opt.metrics()["lr"] == [0.1875 * 0.5 ** (4 - g["depth"]) for g in opt.param_groups]
    assert all(("param_names" in group) == named for group in opt.param_groups)


def test_groups_of_torch_take_numbers():
    opt = torch.optim.AdamW(groups.layerwise(Transformer(), 0.1, layer_decay=0.5), lr=1.0)
    assert [group["lr"] for group in opt.param_groups] == [0.1 * 0.5**n for n in (4, 3, 2, 1, 0)]


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (nn.Sequential(nn.ReLU()), {}, "^model: has no parameters"),
        (nn.ModuleList([nn.Sequential(nn.ReLU())]).append(nn.ReLU()), {}, "^model: has no param"),
        (nn.ModuleDict({"a": nn.Sequential(), "b": nn.Linear(2, 2)}), {}, "^model: has no Module"),
        (nn.Linear(2, 2), {}, r"^model: has no ModuleList or Sequential .* blocks= or depth="),
        (nn.Bilinear(2, 2, 2), {"blocks": "layer"}, "^blocks: the model has no module .*'layer'"),
        (Transformer(), {"blocks": "norm"}, "^blocks: 'norm' contains no module with parameters"),
        (Transformer(), {"blocks": []}, "^blocks: must not be empty"),
        (Residual(), {"blocks": ["layer1", "layer1"]}, "^blocks: .* 'layer1' contains 'layer1'"),
        (Residual(), {"blocks": ["", "layer1"]}, "^blocks: must not overlap, but '' contains"),
        (Residual(), {"blocks": ["layer1", ""]}, "^blocks: must not overlap, but '' contains"),
        (
            Transformer(),
            {"blocks": ["encoder.layer.1", "encoder.layer"]},
            "^blocks: .* 'encoder.layer' contains 'encoder.layer.1'",
        ),
        (Residual(), {}, r"^model: 'layer1' and 'layer2' have 2 blocks each"),
        (Residual(), {"blocks": "layer1", "depth": len}, "^blocks: must be left out with depth"),
        (Residual(), {"depth": lambda name: -1}, r"^depth\('stem.weight'\): must be at least 0"),
        (Transformer(), {"lr": [0.1] * 4}, "^lr: .*depth from 0 to 4, got 4"),
        (Transformer(), {"lr": [0.1] * 4 + [-0.1]}, r"^lr\[4\]: must not be negative"),
        (Transformer(), {"lr": lambda d, _: 1.0 if d else math.nan}, r"^lr\(0, 4\): must be fin"),
        (Transformer(), {"lr": math.inf}, "^lr: must be finite"),
        (Transformer(), {"layer_decay": 0.0}, "^layer_decay: must be greater than 0"),
        (Transformer(), {"layer_decay": math.nan}, "^layer_decay: must be finite"),
        (Transformer(), {"layer_decay": 1e80}, r"^layer_decay: .*finite, got 1e\+80 \*\* 4"),
        (Transformer(), {"layer_decay": 1e77, "lr": 1e3}, r"^layer_decay: .* got 1e\+77 \*\* 4"),
        (Transformer(), {"layer_decay": 1e80, "lr": S.constant(0.1)}, "^layer_decay: its power"),
    ],
)
def test_wrong_values(model, options, message):
    with pytest.raises(ValueError, match=message):
        groups.layerwise(model, **{"lr": 0.1, **options})


@pytest.mark.parametrize(
    ("model", "options", "name"),
    [
        (None, {}, "model"),
        ([nn.Parameter(torch.ones(2))], {}, "model"),
        (Transformer(), {"lr": "0.1"}, "lr"),
        (Transformer(), {"lr": None}, "lr"),
        (Transformer(), {"lr": lambda d, _: None}, r"lr\(0, 4\)"),
        (Transformer(), {"layer_decay": "0.5"}, "layer_decay"),
        (Transformer(), {"depth": {"norm.weight": 1}}, "depth"),
        (Transformer(), {"depth": lambda name: 1.0}, r"depth\('position'\)"),
        (Transformer(), {"blocks": 1}, "blocks"),
        (Transformer(), {"exclude_1d": 1}, "exclude_1d"),
        (Transformer(), {"named": None}, "named"),
    ],
)
def test_wrong_types(model, options, name):
    with pytest.raises(TypeError, match=f"^{name}: must be"):
        groups.layerwise(model, **{"lr": 0.1, **options})
