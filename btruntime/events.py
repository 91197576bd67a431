"""What a run tells everybody who watches it: snapshots of its tree, one record per tick, and how it ended.

The runtime's thread makes these; everything in them is immutable, so any thread may keep them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING

from skills.outcome import Outcome as Outcome

if TYPE_CHECKING:
    from py_trees.behaviour import Behaviour

    from hal.clock import Timing
    from hal.types import Setpoint


class NodeType(StrEnum):
    """What a node of a tree does with its children."""

    SEQUENCE = "Sequence"
    SELECTOR = "Selector"
    PARALLEL = "Parallel"
    DECORATOR = "Decorator"
    LEAF = "Leaf"


class NodeStatus(StrEnum):
    """The status of a node. INVALID: not ticked yet, or stopped before it ended."""

    INVALID = "INVALID"
    RUNNING = "RUNNING"
    SUCCESS = "SUCCESS"
    FAILURE = "FAILURE"


@dataclass(frozen=True, slots=True)
class NodeSnapshot:
    """One node at one tick.

    Attributes:
        id: its place in the tree, stable within a run: "0" the root, "0.2.1" the second child of the root's third.
        name: as its author gave it; may hold anything, so a view escapes it.
        class_name: its class, for example "Retry" or "PolicyLoop".
        memory: whether a sequence or selector resumes its running child; None for other nodes.
        feedback: why it is in this status, in words; may hold anything.
        children: ids, in order.
    """

    id: str
    name: str
    type: NodeType
    class_name: str
    memory: bool | None
    status: NodeStatus
    feedback: str
    children: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TreeSnapshot:
    """A whole tree after one tick.

    Attributes:
        nodes: every node, parents before children, children left to right.
        time_s: of the clock that the run uses.
        changed: shape, a status or a feedback differs from the snapshot before; true for the first.
    """

    nodes: tuple[NodeSnapshot, ...]
    tick: int
    time_s: float
    changed: bool

    @property
    def root(self) -> NodeSnapshot:
        """The node without a parent."""
        return self.nodes[0]

    def same_shape(self, other: TreeSnapshot) -> bool:
        """Whether both show the same nodes, whatever their status."""
        return len(self.nodes) == len(other.nodes) and all(
            a is b or structure(a) == structure(b) for a, b in zip(self.nodes, other.nodes, strict=True)
        )

    def with_depth(self) -> Iterator[tuple[int, NodeSnapshot]]:
        """Every node with its depth; the root's is 0."""
        for node in self.nodes:
            yield node.id.count("."), node


def structure(node: NodeSnapshot) -> tuple[object, ...]:
    """All of a node that stays the same while a tree runs."""
    return node.id, node.name, node.type, node.class_name, node.memory, node.children


def snapshot(root: Behaviour, tick: int, time_s: float, previous: TreeSnapshot | None = None) -> TreeSnapshot:
    """The tree under `root` as it is now. Call it between ticks, on the thread that ticks.

    Args:
        root: the tree; every node is included, visited in this tick or not.
        tick: number of the tick that just ended.
        time_s: when that was.
        previous: the snapshot before; nodes that did not change are shared with it.
    """
    behaviours = _preorder(root)
    if previous is not None:
        nodes = _updated(behaviours, previous.nodes)
        if nodes is not None:
            changed = nodes is not previous.nodes
            return TreeSnapshot(nodes, tick, time_s, changed)
    return TreeSnapshot(tuple(_first_seen(root, "0")), tick, time_s, True)


def _preorder(root: Behaviour) -> list[Behaviour]:
    found, pending = [], [root]
    while pending:
        node = pending.pop()
        found.append(node)
        if node.children:
            pending.extend(reversed(node.children))
    return found


def _updated(behaviours: list[Behaviour], before: tuple[NodeSnapshot, ...]) -> tuple[NodeSnapshot, ...] | None:
    """`before` itself when nothing changed, new nodes where something did, None when the tree has another shape.

    In pre-order the same counts of children mean the same places, so ids need no comparing.
    """
    if len(behaviours) != len(before):
        return None
    nodes = list(before)
    changed = False
    for index, (node, old) in enumerate(zip(behaviours, before, strict=True)):
        if (
            node.name != old.name
            or type(node).__name__ != old.class_name
            or len(node.children) != len(old.children)
            or _memory(node) is not old.memory
        ):
            return None
        status, feedback = node.status.name, node.feedback_message
        if status != old.status or feedback != old.feedback:
            feedback = _text(feedback)
            if status != old.status or feedback != old.feedback:
                nodes[index] = replace(old, status=NodeStatus[status], feedback=feedback)
                changed = True
    return tuple(nodes) if changed else before


def _first_seen(node: Behaviour, node_id: str) -> Iterator[NodeSnapshot]:
    yield NodeSnapshot(
        id=node_id,
        name=node.name,
        type=_type_of(node),
        class_name=type(node).__name__,
        memory=_memory(node),
        status=NodeStatus[node.status.name],
        feedback=_text(node.feedback_message),
        children=tuple(f"{node_id}.{index}" for index in range(len(node.children))),
    )
    for index, child in enumerate(node.children):
        yield from _first_seen(child, f"{node_id}.{index}")


def _type_of(node: Behaviour) -> NodeType:
    from py_trees import composites, decorators

    for kind, node_type in (
        (composites.Sequence, NodeType.SEQUENCE),
        (composites.Selector, NodeType.SELECTOR),
        (composites.Parallel, NodeType.PARALLEL),
        (decorators.Decorator, NodeType.DECORATOR),
    ):
        if isinstance(node, kind):
            return node_type
    return NodeType.LEAF


def _memory(node: Behaviour) -> bool | None:
    """A leaf may keep something of its own under that name."""
    memory = getattr(node, "memory", None)
    return memory if isinstance(memory, bool) else None


def _text(feedback: object) -> str:
    """Leaves of other authors leave None or a number there."""
    if isinstance(feedback, str):
        return feedback
    return "" if feedback is None else str(feedback)


@dataclass(frozen=True, slots=True)
class RunResult:
    """How a run ended.

    Attributes:
        reason: one sentence; for a fault, its cause.
        started_s, ended_s: of the clock that the run used.
        timing: what its `Rate` measured.
        gate_counts: what the motion gate counted, by the names of `hal.motion.GateReport`.
    """

    outcome: Outcome
    reason: str
    started_s: float
    ended_s: float
    ticks: int
    timing: Timing
    gate_counts: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def success(self) -> bool:
        """Whether the tree did what it was for."""
        return self.outcome is Outcome.DONE

    @property
    def duration_s(self) -> float:
        """From the start of the run to its end."""
        return self.ended_s - self.started_s


@dataclass(frozen=True, slots=True)
class TickRecord:
    """One period of the 25 Hz loop. Hand over mappings that nobody changes afterwards.

    Attributes:
        ages: seconds since each sensor was measured; inf if never.
        asked: what the tree asked for in this tick, before the motion gate, by the names of the action
            dimensions; of several commands for the same dimension the last. None if it asked for nothing.
        sent: the setpoint that the gate sent last, as `setpoint_values` gives it; None before the first.
        lateness_s: how long after its deadline the tick began.
        work_s: how long it took.
        holding: why the gate lets nothing but "hold" through; None while it lets commands through.
    """

    tick: int
    time_s: float
    tree: TreeSnapshot
    ages: Mapping[str, float]
    asked: Mapping[str, float] | None
    sent: tuple[float, ...] | None
    lateness_s: float
    work_s: float
    holding: str | None = None


def setpoint_values(setpoint: Setpoint) -> tuple[float, ...]:
    """(J,) joint positions, (G,) gripper fractions (NaN before the first command), then (2,) base velocity.

    Grippers and base where there are any: in the order of `hal.types.RobotSpec.action_spec`, whose names they have.
    """
    parts = (setpoint.qpos, setpoint.grippers, setpoint.base_velocity)
    return tuple(value for part in parts if part is not None for value in part.tolist())
