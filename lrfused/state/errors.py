"""What plan latched in the words of the state, as an exception."""

from lrfused.settings.options import Error, Slot
from lrfused.state.device_state import Field, Reading


def error_of(reading: Reading) -> RuntimeError | None:
    """The first step that was refused since the host last looked; None if all went well."""
    error, step = reading[Field.ERROR], reading[Field.ERROR_STEP]
    place, value = reading[Field.ERROR_PLACE], reading[Field.ERROR_VALUE]
    if error == Error.NONE:
        return None
    if error == Error.GRADIENT:
        what = "a gradient is not finite (nonfinite='raise')"
    elif error == Error.COUNT:
        what = f"state['step'] of parameter {place} is {value}, it must be a count, in [0, 2**62)"
    else:
        slot = Slot(int(reading[Field.ERROR_SLOT]))
        what = f"{slot.name.lower()} of param_groups[{place}] is {value}, it must be {_rule(slot)}"
    return RuntimeError(f"step {step}: {what}; nothing was changed")


def _rule(slot: Slot) -> str:
    if slot in (Slot.CLIP_VALUE, Slot.AGC, Slot.MAX_GRAD_NORM):
        return "0 or greater"
    if slot in (Slot.BETA1, Slot.BETA2):
        return "in [0, 1)"
    return "finite"
