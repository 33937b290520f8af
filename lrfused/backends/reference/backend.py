"""The reference as a backend."""

from lrfused.backends import reference
from lrfused.backends.protocol import Backend, Runner
from lrfused.backends.work import Outcome, Place, Work
from lrfused.state.device_state import Field


class ReferenceBackend(Backend):
    """Plain torch operations, on every device that torch runs on."""

    name = "reference"
    reads_addresses = False

    def bind(self, work: Work, instruction_set: str) -> Runner:
        """Nothing is bound: the tensors are looked up at each step."""
        return ReferenceStep()

    def describe(self) -> str:
        """How it computes."""
        return "plain torch operations"


class ReferenceStep:
    """Steps any work."""

    updates = True

    def __call__(self, work: Work) -> Outcome:
        """One step, of which the host knows everything."""
        reference.step(work)
        words = work.state.words
        return Outcome(int(words[Field.ERROR]), int(words[Field.STEP]))

    def update(self, work: Work, indices: list[int], sources: list[Place]) -> None:
        """Nothing was bound."""
