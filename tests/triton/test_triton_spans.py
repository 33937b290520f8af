"""Plan over many chunks: made-up sums of tensors that have no memory, against the definition."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from lib.interpreting import is_there
from lib.runs import advance, assert_as_reference, assert_same_bits, random_problem, start

from lrfused import schedules as S

if not is_there:
    pytest.skip("Triton is not installed or not interpreted", allow_module_level=True)

from lrfused.backends.reference.scalars import agc_coefficient, clip_coefficient
from lrfused.backends.triton import words as w
from lrfused.backends.triton.step import TritonStep
from lrfused.backends.work import PLAN
from lrfused.numerics.norm import CHUNK, combine
from lrfused.state.device_state import Field

INF = float("inf")
INVERSE = 0.25
# Units of a tensor and their chunks; groups take turns, of which the second has no adaptive clip.
TABLES = {
    "short units": [(700, 1), (1, 1), (3, 1)],
    "odd": [(5, 2), (2, 3), (255, 1), (1, 1), (3, 7), (300, 1), (1, 9)],
    "units of several spans": [(1, 255), (1, 258), (3, 1), (1, 600), (9, 2), (1, 1), (2, 300)],
    "more spans than lanes": [(2, 1), (1, 300), (1, 65800), (1, 3)],
}


def without_memory(entry, units, chunks):
    """An entry of so many units with so many chunks."""
    length = chunks * CHUNK
    flat = torch.empty(units * length, device="meta")
    state = tuple(x and replace(x, _flat=flat) for x in entry.state)
    return replace(entry, unit=length, p=replace(entry.p, _flat=flat), state=state)


def made_up(table, **options):
    """The work over such a table, and who steps it."""
    made = start([torch.ones(2)] * len(table), "triton", accumulation_steps=4, **options)
    advance(made, [torch.ones(2)] * len(table))
    work = made.opt._engine.table.work
    entries = [without_memory(e, *sizes) for e, sizes in zip(work.entries, table, strict=True)]
    work = replace(work, entries=entries)
    work.addresses[:] = 0, 1
    return work, TritonStep(work, torch.device("cpu"))


def random_halves(rng, chunks):
    """Numbers of very different sizes: another order of additions has other sums."""
    return torch.from_numpy(10.0 ** rng.numpy.uniform(-9, 0, 2 * chunks))


def fill(rng, work, step):
    """What measure would have found."""
    groups = np.repeat([entry.group for entry in work.entries], work.chunks)
    found, chunks = step._measured, len(groups)
    for sums in (found.raw, found.clipped, found.param):
        sums.copy_(random_halves(rng, chunks))
    for bits in (found.largest, found.seen):
        bits.copy_(random_halves(rng, chunks).view(torch.int64))
    clips = np.array([work.groups[g].value_clip for g in groups]).repeat(2)
    found.findings.copy_(torch.from_numpy(int(w.ACTIVE) + int(w.CLIPPED) * clips))
    found.spans.fill_(-1)


def expected(work, step, table, agc):
    """(factors, norm before any clip, what the global clip sees)."""
    found, infinite = step._measured, work.options.infinity_norm
    raw, clipped, param = (x.view(-1, 2).sum(1) for x in step._measured[:3])
    largest, seen = (x.view(torch.float64).view(-1, 2).amax(1) for x in (found.largest, found.seen))
    factors, sums, most, first = [], [], [], 0
    for entry, (units, chunks) in zip(work.entries, table, strict=True):
        group = work.groups[entry.group]
        for _ in range(units):
            part = slice(first, first + chunks)
            first += chunks
            unscaled = clipped[part] if group.value_clip else raw[part] * (INVERSE * INVERSE)
            factor = agc_coefficient(agc, combine(unscaled), combine(param[part]))
            factors.append(factor if group.agc else 1.0)
            sums.append(unscaled * (factors[-1] * factors[-1]))
            most.append(float(seen[part].max()) * factors[-1])
    if infinite:
        return factors, float(largest.max()) * INVERSE, max(most)
    return factors, np.sqrt(combine(raw)) * INVERSE, np.sqrt(combine(torch.cat(sums)))


@pytest.mark.parametrize("norm_type", [2.0, INF])
@pytest.mark.parametrize("name", TABLES)
def test_spans_are_combined_as_the_norm_is_defined(rng, name, norm_type):
    table, agc = TABLES[name], 0.5
    groups = ({"agc": agc, "clip_value": 1.0}, {}, {"agc": S.step * 0 + agc})
    work, step = made_up(table, groups=groups, max_grad_norm=0.01, norm_type=norm_type)
    for _ in range(1 + (name == "odd")):  # the tickets are ready for another step
        fill(rng, work, step)
        step.run(step.prepare(work), PLAN)
        factors, norm, seen = expected(work, step, table, agc)
        want = torch.tensor(factors, dtype=torch.float64)
        assert_same_bits(step._decided.factors[: len(want)], want)
        assert 0 < (want < 1).sum() < len(want)
        floats = work.state.floats
        assert float(floats[Field.GRAD_NORM]) == norm
        assert float(floats[Field.CLIP_COEFFICIENT]) == clip_coefficient(0.01, seen)
        assert not step._measured.tickets.any()


def test_an_overflow_in_any_span_is_found(rng):
    work, step = made_up(TABLES["odd"], max_grad_norm=1.0, loss_scale=1.0)
    chunks = sum(work.chunks)
    for chunk in (0, 255, 256, chunks - 1):
        fill(rng, work, step)
        step._measured.findings[2 * chunk] |= int(w.OVERFLOWS)
        before = int(work.state.words[Field.SKIPPED_STEPS])
        step.run(step.prepare(work), PLAN)
        assert int(work.state.words[Field.SKIPPED_STEPS]) == before + 1


def test_a_step_over_two_spans(rng):
    """Units beside units of several chunks, a scheduled threshold, value clip."""
    problem = random_problem(rng, [(130, 2), (5,), (2, 65537), (128, 1), (3, 2)], 1)
    groups = ({"agc": S.linear(0.05, 0.2, 3)}, {"clip_value": S.linear(0.5, 0.2, 4), "agc": 0.1})
    assert_as_reference(problem, "triton", groups=groups, max_grad_norm=0.1, accumulation_steps=3)
