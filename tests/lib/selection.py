"""What `make test` leaves to the slow tests, by name: rooms, files and functions of tests."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

# The interpreter takes most of the time of all tests. Over it these run with the slow ones: what
# they show is host Python, or what the other backends and the files and tests kept show as well.
INTERPRETED_LATER = ("contract", "riders", "several", "step", "torch_compile")
KEPT = ("test_equality.py", "test_every_pair_of_dtypes", "test_a_step_measures_that_norm")
KEPT += ("test_random_combinations_on_several_devices", "test_riders_equality.py")
# CUDA's PTX takes milliseconds a test: what latches errors is run, too.
REFUSED_COUNT = "test_a_step_count_that_is_no_count_is_refused"
KEPT_OF_PTX = ("test_skips.py", "test_hyperparameters.py", REFUSED_COUNT)
KEPT_OF_PTX += ("test_spans_and_units_on_several_devices",)
NOT_KEPT = ("test_random_combinations",)
# Of random trials that are kept, as many are interpreted by default.
TRIALS = {"test_sizes_at_the_edges_of_blocks_and_chunks": 1, "test_any_riders_with_any_options": 2}
# The first kind of optimizer runs over every backend, the others over this one and with the slow
# tests over all: what they show beyond the kernels' own tests is host Python.
SHORT = "cpu"
# What processes of their own show of host Python is shown over one backend and the first kind,
# with the slow tests over all.
IN_PROCESSES = ("test_storage_of_moments_and_counts_may_move", "test_freed_storage_is_refused")
IN_PROCESSES += ("test_a_killed_run_resumes_bit_equal", "test_a_spawned_process_steps_on")

# What follows from AdamW's tests for the other rules: the rest of a step does not know the rule.
OTHER_RULES = ("sgd", "lion")
OVER_KERNELS = ("test_every_option", "test_random_combinations", "test_every_pair_of_dtypes")
OVER_KERNELS += ("test_random_combinations_on_several_devices", "test_any_riders_with_any_options")
OF_EACH_RULE = ("test_whole_tiles", "test_state_of_another_dtype")  # kernels of their own
OVER_TRITON = "scheduled"  # the option with which the interpreter takes them
# Of Triton's PTX: seconds to compile each.
OPTIONS_OF_PTX = ("default", "max_grad_norm", "agc by unit", "averages", "dynamic scale")
TRANSLATED = ("test_units_of_several_chunks", "test_raise_names_the_step_and_changes_nothing")
TRANSLATED += ("test_advance_schedule_on_skip_moves_the_schedule_alone",)
TRANSLATED += ("test_a_limit_that_is_unusable_at_the_first_step", REFUSED_COUNT)
OF_16_BITS = (torch.bfloat16, torch.float16)  # which have instructions of their own
TRANSLATED_OF_16_BITS = (
    "test_every_pair_of_dtypes",
    "test_nothing_overflows_or_vanishes_falsely",
)


def is_of_another_rule_later(path: Path, name: str, given: Mapping[str, Any]) -> bool:
    """A test of SGD or Lion that is left to the slow ones: most of them, GPU tests apart."""
    if given.get("rule") not in OTHER_RULES or path.parent.name == "gpu" or name in OF_EACH_RULE:
        return False
    backend = given.get("backend", given.get("kernels"))
    if backend == "triton-ptx":
        return not is_translated(name, given)
    if backend == "triton":
        return name != "test_every_option" or given["name"] != OVER_TRITON
    return name not in OVER_KERNELS or backend not in ("cpu", "cuda", "cuda-ptx")


def is_translated(name: str, given: Mapping[str, Any]) -> bool:
    """A test that runs Triton's PTX by default."""
    if given.get("rule", "adamw") != "adamw":
        return name == "test_every_option" and given["name"] == OVER_TRITON
    if name in TRANSLATED_OF_16_BITS:
        dtype = given["dtype"]
        return dtype in OF_16_BITS and given.get("gradient_dtype", dtype) == dtype
    return name in TRANSLATED or (name == "test_every_option" and given["name"] in OPTIONS_OF_PTX)
