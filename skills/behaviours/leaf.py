"""What all leaves have in common: an outcome, a lease, and that no exception leaves the tree."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable

from py_trees.behaviour import Behaviour
from py_trees.common import Status

from foundation.errors import BtruntimeError
from hal.motion import Resource
from hal.motion.lease import Lease
from skills.context import SkillContext
from skills.outcome import Outcome


class Leaf(Behaviour):
    """A leaf that moves the robot, or prepares to.

    Subclasses implement `begin` and `advance` (and `end` where they hold more than a lease). `begin` may acquire a
    lease with `take`; it is given back when the leaf ends, and halts only what it still holds: when a higher branch
    pre-empts this one, py_trees starts the new leaf before it stops the old.

    Attributes:
        outcome: how the leaf failed; None while it runs or when it succeeded.
    """

    def __init__(self, name: str, ctx: SkillContext):
        super().__init__(name=name)
        self.ctx = ctx
        self.outcome: Outcome | None = None
        self._lease: Lease | None = None
        self._begin_error: str | None = None

    def begin(self) -> None:
        """Start; called once per run of the leaf."""

    @abstractmethod
    def advance(self) -> Status:
        """One tick."""

    def end(self) -> None:
        """Let go of what `begin` took, the lease excepted. Must be cheap and idempotent."""

    def take(self, resources: Iterable[Resource], sensors: Iterable[str] = ()) -> Lease:
        """Acquire a lease for as long as this leaf runs."""
        self._lease = self.ctx.gate.acquire(self.name, resources, ("joints", *sensors))
        return self._lease

    def fail(self, outcome: Outcome, reason: str) -> Status:
        """End in failure, with the sentence a person will read."""
        self.outcome, self.feedback_message = outcome, reason
        return Status.FAILURE

    def gate_fault(self) -> str | None:
        """Why this leaf may not move the robot any more: the motion gate gave up on it, or somebody took over."""
        lease = self._lease
        if lease is None:
            return None
        if (fault := self.ctx.gate.fault(lease)) is not None:
            return fault
        # A pre-empted leaf is stopped within the tick, so one that is still ticked has a rival.
        lost = [resource for resource in sorted(lease.resources) if not self.ctx.gate.holds(lease, resource)]
        return f"{self.name} lost the {' and the '.join(lost)}: something else moves the robot, too." if lost else None

    def initialise(self) -> None:
        self.outcome, self._begin_error = None, None
        self.feedback_message = ""
        # An exception would unwind the whole tick and leave the other nodes running; here and in `update`.
        try:
            self.begin()
        except Exception as error:  # noqa: BLE001 - a bug in a leaf must end in a robot at rest, and be told
            self._begin_error = self._sentence(error)

    def update(self) -> Status:
        if self._begin_error is not None:
            return self.fail(Outcome.FAULT, self._begin_error)
        try:
            return self.advance()
        except Exception as error:  # noqa: BLE001 - as above
            return self.fail(Outcome.FAULT, self._sentence(error))

    def _sentence(self, error: Exception) -> str:
        return str(error) if isinstance(error, BtruntimeError) else f"internal error in {self.name}: {error!r}"

    def terminate(self, new_status: Status) -> None:
        if self._lease is not None:
            self.ctx.gate.release(self._lease)
            self._lease = None
        self.end()
