"""A KeyboardInterrupt at each place of the package where a call can meet one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lib.calls import PACKAGE, profiled

Event = tuple[str, int, str, str]  # file, line, function, compiled function that returned


def watched(call: Callable[[], Any], on_event: Callable[[Event], Any]) -> None:
    """A call that calls ``on_event`` wherever Python itself would act on a signal.

    That is at the start of a function and when a call of compiled code returns.
    """

    def profile(frame: Any, event: str, function: Any) -> None:
        code = frame.f_code
        # A generator is called to close it, too, and what is raised then is dropped. Python 3.12
        # says so; before, an expression that any() has left looks as if it went on.
        closes = event == "call" and code.co_name == "<genexpr>"
        if closes or isinstance(function, GeneratorExit):
            return
        if event in ("call", "c_return") and code.co_filename.startswith(PACKAGE):
            name = getattr(function, "__name__", "")
            on_event((Path(code.co_filename).name, frame.f_lineno, code.co_name, name))

    with profiled(profile):
        call()


def interrupt_at(chosen: Event) -> Callable[[Event], None]:
    """For `watched`: a KeyboardInterrupt wherever it comes to this place."""

    def interrupt(event: Event) -> None:
        if event == chosen:
            raise KeyboardInterrupt

    return interrupt
