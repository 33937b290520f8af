"""docs/checkpoints.md: its three lines are run as they stand, its keys are those that there are."""

import re
from pathlib import Path

import pytest
import torch
from torch.distributed import checkpoint as dcp
from torch.distributed.checkpoint import default_planner, state_dict

import lrfused
from lrfused import schedules
from lrfused.groups.shared_counters import KEYS
from lrfused.rules import RULES
from lrfused.rules.average import AVERAGE
from lrfused.state.masks import KEY as MASK
from lrfused.state.step_counts import carried_keys

PAGE = (Path(__file__).parents[2] / "docs" / "checkpoints.md").read_text(encoding="utf-8")


def train(model, optimizer, steps):
    """Steps on gradients of ones."""
    for _ in range(steps):
        for p in model.parameters():
            p.grad = torch.ones_like(p)
        optimizer.step()


@pytest.mark.filterwarnings("ignore::UserWarning:torch.distributed")
@pytest.mark.parametrize("flatten", [False, True])
def test_a_checkpoint_of_torchs_loads_in_three_lines(tmp_path, flatten):
    """torch.distributed.checkpoint's files of torch.optim.AdamW in lrfused.AdamW: the lines of the
    page, after which the schedule leads from the largest step."""
    (lines,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(lines.splitlines()) == 3
    options = state_dict.StateDictOptions(flatten_optimizer_state_dict=flatten)
    model = torch.nn.Linear(3, 2)
    theirs = torch.optim.AdamW(model.parameters(), lr=0.3)
    train(model, theirs, 5)
    theirs.zero_grad()  # in another process there would be none
    saved = {"optimizer": state_dict.get_optimizer_state_dict(model, theirs, options=options)}
    dcp.save(saved, checkpoint_id=tmp_path, no_dist=True)
    lr = schedules.linear(0.1, 0.0, 20)
    optimizer = lrfused.AdamW(model.parameters(), lr=lr)
    names = {"model": model, "optimizer": optimizer, "options": options, "folder": tmp_path}
    exec(lines, {**vars(state_dict), **vars(default_planner), "dcp": dcp, **names})
    assert optimizer.metrics()["steps"] == 5 and optimizer.param_groups[0]["lr"] == lr(5)
    for param in model.parameters():
        for key in ("exp_avg", "exp_avg_sq"):
            assert torch.equal(optimizer.state[param][key], theirs.state[param][key])


def test_the_page_names_every_key():
    """What stands in groups and states besides torch's keys, and nothing else of that kind."""
    named = set(re.findall(r"`(lrfused(?:_\w+)?)`", PAGE))
    carried = {key for rule in RULES for key in carried_keys(rule)}
    assert named == {*KEYS, *carried, AVERAGE.key, MASK}
