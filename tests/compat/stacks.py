"""The stacks on which lrfused is tested: what `make compat` runs, oldest first."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Stack:
    """Versions that are installed together.

    Attributes:
        is_pinned: the one of constraints.txt, which is the Python that runs `make compat`.
    """

    python: str
    torch: str
    triton: str
    numpy: str
    is_pinned: bool = False

    @property
    def name(self) -> str:
        return f"python{self.python}-torch{self.torch}"


STACKS = (
    Stack("3.10", "2.8.0", "3.4.0", "1.24.4"),
    Stack("3.10", "2.9.1", "3.5.1", "2.2.6"),
    Stack("3.12", "2.10.0", "3.6.0", "2.5.5"),
    Stack("3.12", "2.11.0", "3.6.0", "2.5.2"),
    Stack("3.13", "2.12.1", "3.7.1", "2.5.5"),
    Stack("3.11", "2.13.0", "3.7.1", "2.4.6", is_pinned=True),
    Stack("3.13", "2.14.1", "3.8.0", "2.5.5"),
    Stack("3.13", "2.15.0", "3.9.0", "2.5.5"),
)
# Triton's wheels alone, beside the pinned torch: every CI run compiles the kernels for sm_90.
TRITONS = ("3.4.0", "3.6.0", "3.9.0")
EXECUTED, PTX = ("3.6.0", "3.9.0"), "executed"  # of these the PTX is run, too, under that name
