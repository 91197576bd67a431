"""Reading a flight recording, whole or cut off by a kill, back into the records that the run produced."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from btruntime.events import (
    NodeSnapshot,
    NodeStatus,
    NodeType,
    Outcome,
    RunResult,
    TickRecord,
    TreeSnapshot,
)
from btruntime.flight.lines import FORMAT, UNSEEN, VERSION
from btruntime.flight.recorder import FlightError
from hal.clock import Timing

_LATE_S = 0.005  # as hal.clock.Rate counts
_DAMAGED = (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError)


@dataclass(frozen=True, slots=True)
class FlightEvent:
    """Something that happened between two ticks; `time_s` is that of the tick before it, None before the first."""

    name: str
    data: Mapping[str, Any]
    at_utc: str
    time_s: float | None


@dataclass(frozen=True, slots=True)
class StateChange:
    """A node went from one status to another; `feedback` says why."""

    tick: int
    time_s: float
    id: str
    name: str
    before: NodeStatus
    after: NodeStatus
    feedback: str


@dataclass(frozen=True, slots=True)
class NodeDuration:
    """How long a node was RUNNING, over all of its starts."""

    id: str
    name: str
    running_s: float
    running_ticks: int


@dataclass(frozen=True, slots=True)
class FlightSummary:
    """A run at a glance.

    Attributes:
        outcome, reason: None and what is known, when the recording has no result.
        timing: the run's own, or worked out from the ticks that there are.
        dropped: records that the disk was too slow for.
    """

    outcome: Outcome | None
    reason: str
    duration_s: float
    ticks: int
    dropped: int
    timing: Timing
    changes: tuple[StateChange, ...]
    nodes: tuple[NodeDuration, ...]


@dataclass(frozen=True, slots=True)
class Flight:
    """A recorded run.

    Attributes:
        run: what the recorder was given as header.
        damage: where and why reading stopped before the end of the file; None if it did not.
        result: how the run ended; None if the recording does not say.
    """

    path: Path
    created_utc: str
    run: Mapping[str, Any]
    ticks: tuple[TickRecord, ...]
    events: tuple[FlightEvent, ...]
    dropped: int
    result: RunResult | None
    damage: str | None

    def summary(self) -> FlightSummary:
        """Outcome, timing, every change of status, and how long each node was running."""
        return FlightSummary(
            outcome=self.result.outcome if self.result else None,
            reason=self.result.reason if self.result else self.damage or "the recording ends without a result",
            duration_s=self._duration_s(),
            ticks=self.result.ticks if self.result else len(self.ticks),
            dropped=self.dropped,
            timing=self.result.timing if self.result else _timing(self.ticks),
            changes=tuple(_changes(self.ticks)),
            nodes=_durations(self.ticks, self.result.ended_s if self.result else None),
        )

    def _duration_s(self) -> float:
        if self.result is not None:
            return self.result.duration_s
        return self.ticks[-1].time_s - self.ticks[0].time_s if self.ticks else 0.0


def read_flight(path: Path) -> Flight:
    """Read a recording; what follows a line that is cut off or damaged is left out, and `Flight.damage` says so.

    Raises:
        FlightError: the file cannot be read, is no flight recording, or was written by a later version.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise FlightError(f"{path}: cannot be read: {error.strerror or error}.") from error
    head, *rest = content.split(b"\n")
    log = _Log(path, _header(path, head))
    tail = rest.pop() if rest else b""
    for number, line in enumerate(rest, 2):
        log.add(number, line)
        if log.damage is not None:
            break
    if tail and log.damage is None:
        log.damage = f"{path}: line {len(rest) + 2} is cut off, so the process that recorded was killed."
    return log.flight()


def _header(path: Path, line: bytes) -> dict[str, Any]:
    try:
        header = _decoded(line)
    except _DAMAGED:
        header = {}
    if header.get("format") != FORMAT:
        raise FlightError(f'{path}: is no flight recording: its first line should hold "format": "{FORMAT}".')
    if header.get("version") != VERSION:
        raise FlightError(
            f"{path}: is a recording of version {header.get('version')!r}, this btruntime reads {VERSION}. Update it."
        )
    return header


@dataclass
class _Log:
    """What has been read so far."""

    path: Path
    header: dict[str, Any]
    nodes: dict[str, NodeSnapshot] = field(default_factory=dict)
    tree: TreeSnapshot | None = None
    ticks: list[TickRecord] = field(default_factory=list)
    events: list[FlightEvent] = field(default_factory=list)
    dropped: int = 0
    result: RunResult | None = None
    damage: str | None = None

    def add(self, number: int, line: bytes) -> None:
        """Take one line; kinds of a later btruntime are passed over."""
        takers = {
            "tree": self._tree,
            "tick": self._tick,
            "event": self._event,
            "dropped": self._drop,
            "result": self._result,
        }
        try:
            content = _decoded(line)
            taker = takers.get(content["kind"])
            if taker is not None:
                taker(content)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            self.damage = (
                f"{self.path}: line {number} is damaged ({type(error).__name__}: {error}); reading stops there."
            )

    def flight(self) -> Flight:
        return Flight(
            path=self.path,
            created_utc=str(self.header.get("created_utc", "")),
            run=self.header.get("run") or {},
            ticks=tuple(self.ticks),
            events=tuple(self.events),
            dropped=self.dropped,
            result=self.result,
            damage=self.damage,
        )

    def _tree(self, line: dict[str, Any]) -> None:
        status, feedback = UNSEEN
        self.nodes = {
            node["id"]: NodeSnapshot(
                id=node["id"],
                name=node["name"],
                type=NodeType(node["type"]),
                class_name=node["class_name"],
                memory=node["memory"],
                status=status,
                feedback=feedback,
                children=tuple(node["children"]),
            )
            for node in line["nodes"]
        }
        self.tree = None

    def _tick(self, line: dict[str, Any]) -> None:
        states = line.get("states", [])
        for node_id, status, feedback in states:
            self.nodes[node_id] = replace(self.nodes[node_id], status=NodeStatus(status), feedback=feedback)
        changed = self.tree is None or bool(states)
        nodes = tuple(self.nodes.values()) if self.tree is None or changed else self.tree.nodes
        self.tree = TreeSnapshot(nodes, line["tick"], line["time_s"], changed)
        self.ticks.append(
            TickRecord(
                tick=line["tick"],
                time_s=line["time_s"],
                tree=self.tree,
                ages=line["ages"],
                asked=line.get("asked"),
                sent=_values(line.get("sent")),
                lateness_s=line["lateness_s"],
                work_s=line["work_s"],
                holding=line.get("holding"),
            )
        )

    def _event(self, line: dict[str, Any]) -> None:
        time_s = self.ticks[-1].time_s if self.ticks else None
        self.events.append(FlightEvent(line["name"], line["data"], line["at_utc"], time_s))

    def _drop(self, line: dict[str, Any]) -> None:
        self.dropped += line["count"]

    def _result(self, line: dict[str, Any]) -> None:
        self.result = RunResult(
            outcome=Outcome(line["outcome"]),
            reason=line["reason"],
            started_s=line["started_s"],
            ended_s=line["ended_s"],
            ticks=line["ticks"],
            timing=Timing(**line["timing"]),
            gate_counts=line["gate_counts"],
        )


def _decoded(line: bytes) -> dict[str, Any]:
    content = json.loads(line)
    if not isinstance(content, dict):
        raise ValueError("not a JSON object")
    for pointer, number in content.pop("nonfinite", {}).items():
        *parents, last = [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]]
        place: Any = content
        for part in parents:
            place = place[int(part) if isinstance(place, list) else part]
        place[int(last) if isinstance(place, list) else last] = float(number)
    return content


def _values(numbers: list[float] | None) -> tuple[float, ...] | None:
    return None if numbers is None else tuple(numbers)


def _changes(ticks: tuple[TickRecord, ...]) -> Iterator[StateChange]:
    before: Mapping[str, NodeSnapshot] = {}
    for record in ticks:
        if not record.tree.changed:
            continue
        now = {node.id: node for node in record.tree.nodes}
        for node in now.values():
            old = before.get(node.id)
            status = old.status if old is not None and old.name == node.name else UNSEEN[0]
            if node.status is not status:
                yield StateChange(record.tick, record.time_s, node.id, node.name, status, node.status, node.feedback)
        before = now


def _durations(ticks: tuple[TickRecord, ...], ended_s: float | None) -> tuple[NodeDuration, ...]:
    """A node counts as running from the tick that found it so to the next tick, or to the end of the run."""
    names: dict[tuple[str, str], None] = {}
    seconds: dict[tuple[str, str], float] = defaultdict(float)
    counts: dict[tuple[str, str], int] = defaultdict(int)
    ends = [record.time_s for record in ticks[1:]]
    ends.append(max(ended_s, ticks[-1].time_s) if ended_s is not None and ticks else ticks[-1].time_s if ticks else 0.0)
    for record, end_s in zip(ticks, ends, strict=False):
        for node in record.tree.nodes:
            key = node.id, node.name
            names[key] = None
            if node.status is NodeStatus.RUNNING:
                seconds[key] += end_s - record.time_s
                counts[key] += 1
    return tuple(NodeDuration(*key, seconds[key], counts[key]) for key in names)


def _timing(ticks: tuple[TickRecord, ...]) -> Timing:
    """What can be said without the run's own clock: no drift."""
    if len(ticks) < 2:
        return Timing(len(ticks), 0.0, 0.0, 0.0, 0.0, 0, 0.0)
    late_ms = np.array([record.lateness_s for record in ticks]) * 1e3
    p50, p99 = np.percentile(late_ms, [50, 99])
    spanned_s, periods = ticks[-1].time_s - ticks[0].time_s, ticks[-1].tick - ticks[0].tick
    return Timing(
        ticks=len(ticks),
        period_ms_mean=spanned_s / max(periods, 1) * 1e3,
        lateness_ms_p50=float(p50),
        lateness_ms_p99=float(p99),
        lateness_ms_max=float(late_ms.max()),
        late_ticks=int((late_ms > _LATE_S * 1e3).sum()),
        drift_ms=0.0,
    )
