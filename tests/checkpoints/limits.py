"""What torch cannot do for its own AdamW: which cells, what they say, and why.

The cells of torch's class show each of these; where lrfused's class can do no more, because the
state was lost before it was asked, its cells show the same.
"""

import re
from typing import NamedTuple


class Limit(NamedTuple):
    """``cells`` and ``says`` are searched for in the cell's name and in what became of it."""

    cells: str
    says: str
    why: str


NOT_YET = r"-(products-)?not-yet-"
UP_TO_2_8 = r"KeyError: '(state\.)?\d\."  # torch's word for it, as for the flattened form
LIMITS = (
    Limit(
        r"-(plain|replicated|fsdp2|fsdp1|fsdp1flat|fsdp1whole)-(memory|full|offloaded|broadcast)"
        + NOT_YET,
        rf"Missing optimizer state for parameter|{UP_TO_2_8}",
        "set_optimizer_state_dict asks for the state of every parameter, and AdamW has none for "
        "one that never had a gradient",
    ),
    Limit(
        r"-(plain|replicated|fsdp2|fsdp1|fsdp1flat|fsdp1whole)-flattened" + NOT_YET,
        "argument must be a string or a real number, not 'dict'|unhashable type: 'dict'"
        rf"|must be a count, got {{}}|{UP_TO_2_8}",
        "the flattened form loads an empty dictionary for each value that it lacks, which FSDP1 "
        "cannot gather; ours refuses it",
    ),
    Limit(
        r"-disk(-flattened)?" + NOT_YET,
        "Missing key in checkpoint state_dict",
        "set_optimizer_state_dict and get_optimizer_state_dict allocate the state of every "
        "parameter in the optimizer that loads, so a strict load asks for it",
    ),
    Limit(
        r"-disk(-flattened)?-partial" + NOT_YET,
        r"more \['exp_avg of parameter|steps is 9, not 6",
        "a partial load leaves what it does not find as it was: a count of 1 in a fresh optimizer, "
        "the old count in a used one, which ours takes for its own",
    ),
    Limit(
        r"-zero-consolidated" + NOT_YET + "used",
        r"more \['exp_avg of parameter|steps is [89], not [56]",
        "ZeroRedundancyOptimizer leaves the state that a checkpoint lacks in a used optimizer",
    ),
    Limit(
        r"-(full|offloaded|broadcast)-(everything|everything-measured)-sgd-without-momentum-",
        "Expected device to be set",
        "a whole state goes to the device of the tensors in the state, of which there is none",
    ),
    Limit(
        r"-fsdp1flat-(disk-)?flattened-everything-sgd-without-momentum-",
        "The state of .* is empty",
        "FSDP1 unflattens the state of a flat parameter, which has none",
    ),
    Limit(
        r"-fsdp1-offloaded-",
        r"differ: .*exp_avg",
        "FSDP1 with use_orig_params gathers all moments into one buffer; .cpu() of what lies on a "
        "CPU makes no copy, so the last moment gathered stands in all of them",
    ),
)

# What ours cannot do, either.
OURS = (
    Limit(
        r"-lrfused-zero-consolidated-(input|everything|everything-measured)-",
        "lr (of group 0 )?is",
        "ZeroRedundancyOptimizer saves the groups as its last step left them: an input that was "
        "written since is not in them",
    ),
)

# Of riders, whose tensors torch's AdamW does not have.
RIDERS = (
    Limit(
        r"-lrfused-fsdp1-.*-riders-(?!.*float32)",
        "Expected dtype == info.dtype",
        "FSDP1 with use_orig_params gathers the tensors of a parameter's state if all have one "
        "dtype, and the average of a 16-bit parameter is float32",
    ),
    Limit(
        r"-lrfused-(.*-)?(disk(-flattened)?(-partial)?|flattened|replicated-broadcast)"
        r"-riders-unmasked-",
        r"missing \['mask of parameter",
        "a load into the state that there is leaves out the masks of an optimizer that has none",
    ),
    Limit(
        r"-lrfused-fsdp1-offloaded-riders-",
        r"differ: .*lrfused_average|lrfused_mask .* must have the values 0 and 1",
        "the last tensor gathered stands in all of them, as above",
    ),
    Limit(
        r"-lrfused-fsdp2-(full|offloaded|broadcast)-riders-unmasked-",
        r"lrfused_mask .* must be a DTensor|missing \['mask of parameter",
        "torch distributes and broadcasts only what the state of the optimizer that loads has",
    ),
)
OURS += RIDERS

# Between the classes: a group of ours has more keys than one of torch's.
BETWEEN = (
    Limit(
        r"-lrfused-(plain|replicated|fsdp2|fsdp1|fsdp1flat|fsdp1whole)-flattened-torch-to-ours-",
        r"KeyError: .*lrfused",
        "the flattened form is asked for every key that stands in the groups of what loads",
    ),
    Limit(
        r"lrfused-.*-disk(-flattened)?-torch-to-ours-",
        "Missing key in checkpoint state_dict: .*lrfused",
        "a strict load asks for every key of what loads; allow_partial_load=True does not",
    ),
    Limit(
        r"-lrfused-(.*-partial|(plain|replicated|fsdp2)-(full|offloaded|broadcast)|zero-consolidated)"
        r"-torch-to-ours-(.*-)?used",
        r"after (the load|step 5): (. differ: parameter|lr )",
        "a partial load, a load of a whole state, and ZeroRedundancyOptimizer leave what they do "
        "not find as it was: the counter of an optimizer that was used for more steps, and so its "
        "schedules, stay ahead",
    ),
    Limit(
        r"-torch-(plain|replicated|fsdp2)-(full|offloaded)-ours-to-torch-",
        r"KeyError: 'param_groups\..*lrfused'",
        "a whole state is refused if a group has a key, other than a tensor, that the groups of "
        "what loads do not have",
    ),
    LIMITS[-1],
)

# The processes die ("Received data size doesn't match expected size"), so these are left out where
# cells share processes: FSDP1 with use_orig_params has no state for a parameter of which other
# ranks hold everything, and the flattened form is read by the names of the state that there is.
DEADLY = r"fsdp1-(disk-)?flattened-.*-used"


def limits_of(cell: str, limits: tuple[Limit, ...] = LIMITS) -> list[Limit]:
    """Those that concern a cell."""
    return [limit for limit in limits if re.search(limit.cells, "-" + cell.replace(":", "-"))]
