"""A backend is a folder and a line in the registry."""

import pytest
import torch

import lrfused
from lrfused.backends import registry
from lrfused.backends.protocol import Backend
from lrfused.backends.reference.backend import ReferenceStep

from .stepping import CPU, backend_of, parameter

ELSEWHERE = torch.device("privateuseone", 0)


class Other(Backend):
    """One that nothing else knows of."""

    name = "other"
    device_types = ("cpu", "privateuseone")
    auto_device_types = ("privateuseone",)
    reads_addresses = False

    def bind(self, work, instruction_set):
        return ReferenceStep()

    def describe(self):
        return "from another planet"


@pytest.mark.parametrize("name", registry.BACKENDS)
def test_a_backend_stands_in_the_folder_of_its_name(name):
    assert type(registry.BACKENDS[name]).__module__ == f"lrfused.backends.{name}.backend"


def test_what_is_listed_can_be_chosen_and_steps(monkeypatch):
    monkeypatch.setitem(registry.BACKENDS, "other", Other())
    assert registry.choose("auto", ELSEWHERE).name == "other"
    assert registry.choose("auto", CPU).name != "other"
    with pytest.raises(ValueError, match=r"'other' takes cpu and privateuseone tensors"):
        registry.checked({"cuda": "other"})
    assert "other      yes: from another planet" in str(lrfused.info())
    p = parameter()
    assert backend_of(lrfused.AdamW([p], backend="other")) == "other"
    assert not torch.equal(p, torch.ones(3))
