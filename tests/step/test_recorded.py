"""AdamW's bits are those of before optimizers were described by rules, on every backend."""

import json

import pytest

from step.recorded import CASES, FILE, digest, run


@pytest.mark.parametrize("case", CASES)
def test_bits_are_those_that_were_recorded(backend, case):
    recorded = json.loads(FILE.read_text())
    assert recorded["digests"].keys() == CASES.keys()
    assert digest(run(case, backend)) == recorded["digests"][case]
