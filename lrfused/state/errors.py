"""Turns the error code that plan latched in the state words into an exception."""

from lrfused.rules import UpdateRule
from lrfused.settings.options import Error, GroupOptions
from lrfused.settings.slots import Slot
from lrfused.state.device_state import Field, Reading


def error_of(reading: Reading, rule: UpdateRule, groups: list[GroupOptions]) -> RuntimeError | None:
    """The error of the first step refused since the last reading; None if there is none."""
    error, step = reading[Field.ERROR], reading[Field.ERROR_STEP]
    place, value = reading[Field.ERROR_PLACE], reading[Field.ERROR_VALUE]
    if error == Error.NONE:
        return None
    if error == Error.GRADIENT:
        what = "a gradient is not finite (nonfinite='raise')"
    elif error == Error.COUNT:
        what = f"state['step'] of parameter {place} is {value}, it must be a count, in [0, 2**53)"
    else:
        slot, g = Slot(int(reading[Field.ERROR_SLOT])), int(place)
        words = rule.range_in_words(slot, groups[g]) if g < len(groups) else slot.range.words
        what = f"{slot.name.lower()} of param_groups[{g}] is {value}, it must be {words}"
    return RuntimeError(f"step {step}: {what}; nothing was changed")
