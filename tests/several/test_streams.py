"""Memory of a step's own is kept for every stream that a step ran on."""

from types import SimpleNamespace

import pytest
import torch
from lib.fake_devices import DEVICES, LEAD, start_apart
from lib.runs import FEW, advance, random_problem

from lrfused import schedules as S
from lrfused.backends.multi_device import Peer, Share
from lrfused.device import streams
from lrfused.device.host_to_device import Upload
from lrfused.device.patches import Patched

OPTIONS = {"max_grad_norm": 1.0, "clip_value": S.input(torch.tensor(0.5), "x")}
PLACES = [(LEAD,), DEVICES]


def memory(tensor):
    """Its address, which views of one tensor share."""
    return tensor.untyped_storage().data_ptr()


@pytest.fixture
def device(monkeypatch):
    """Its current stream, and (address, stream) of what was recorded since this was emptied."""
    posing = SimpleNamespace(stream=SimpleNamespace(stream_id=0, cuda_stream=0), recorded=[])

    def record_stream(tensor, stream):
        posing.recorded.append((memory(tensor), stream.stream_id))

    def go_to(number):
        posing.stream = SimpleNamespace(stream_id=number, cuda_stream=0)
        posing.recorded.clear()

    posing.go_to = go_to
    monkeypatch.setattr(streams, "current_stream", lambda device: posing.stream)
    monkeypatch.setattr(torch.Tensor, "record_stream", record_stream)
    return posing


def stepped(rng, backend, places):
    """An optimizer after a step, and gradients for the next."""
    problem = random_problem(rng, FEW, 1)
    made = start_apart(problem.values, backend, places, **OPTIONS)
    advance(made, problem.gradients[0])
    return made, problem.gradients[0]


def tensors_of(thing):
    """Those that belong to what steps a table: not the table itself, nor what it was made from."""
    if isinstance(thing, torch.Tensor):
        return [] if thing.is_meta else [thing]
    if isinstance(thing, (list, tuple)):
        return [tensor for part in thing for tensor in tensors_of(part)]
    if isinstance(thing, (Upload, Patched)) or hasattr(type(thing), "push"):
        parts = {k: v for k, v in vars(thing).items() if k not in ("_params", "uses")}
        return tensors_of(list(parts.values()))
    if isinstance(thing, Peer):
        mirrors = [mirror for mirror, _ in thing._mirrors]
        return tensors_of([thing.step, thing._here, thing._there, mirrors])
    if isinstance(thing, Share):
        return tensors_of(thing.step)
    return []


@pytest.mark.parametrize("places", PLACES, ids=len)
def test_all_of_it_is_recorded_once_for_each_stream(rng, device, backend, places):
    made, gradients = stepped(rng, backend, places)
    owned = {memory(tensor) for tensor in tensors_of(made.opt._engine.table.run)}
    state = made.opt._engine.bookkeeping.state(made.opt.param_groups)
    owned |= {memory(x) for x in (state.words, state.tensors.counts, state.loss_scale)}
    assert len(owned) > 5
    for stream in (1, 2):
        device.go_to(stream)
        advance(made, gradients)
        assert {number for _, number in device.recorded} == {stream}
        assert {address for address, _ in device.recorded} >= owned - {0}
        device.recorded.clear()
        advance(made, gradients)
        assert not device.recorded
    for stream in (0, 2, 1):
        device.go_to(stream)
        advance(made, gradients)
        assert not device.recorded


@pytest.mark.parametrize("places", PLACES, ids=len)
def test_push_uses_it_too(rng, device, backend, places):
    made, _ = stepped(rng, backend, places)
    device.go_to(1)
    made.opt.param_groups[0]["lr"] = 0.5
    made.opt.push()
    assert device.recorded


def test_a_new_table_is_recorded_anew(rng, device, backend):
    made, gradients = stepped(rng, backend, (LEAD,))
    device.go_to(1)
    made.opt.param_groups[0]["maximize"] = True
    advance(made, gradients)
    owned = {memory(tensor) for tensor in tensors_of(made.opt._engine.table.run)}
    assert {address for address, _ in device.recorded} >= owned - {0}


def test_nothing_is_recorded_in_a_capture(rng, device, backend, monkeypatch):
    made, gradients = stepped(rng, backend, (LEAD,))
    device.go_to(1)
    with monkeypatch.context() as capture:
        capture.setattr(streams, "is_capturing", lambda device: True)
        advance(made, gradients)
    assert not device.recorded
    advance(made, gradients)  # the stream goes on without a capture
    assert device.recorded


def test_a_cpu_has_no_streams():
    assert streams.current_stream(torch.device("cpu")) is None
    uses = streams.StreamUse(torch.device("cpu"), [torch.zeros(1)])
    assert uses.now() is None
