"""The lines of a flight recording: one JSON object each, its kind under "kind".

`header` comes first, then `tree` (the structure, before the first tick and whenever it changes), `tick` (with the
states that changed), `event`, `dropped` (records that were lost there), and `result` last. A number that JSON cannot
hold is null, and "nonfinite" says by JSON pointer what it was.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Set
from dataclasses import fields, is_dataclass
from datetime import UTC, date, datetime
from enum import Enum
from pathlib import Path

import numpy as np

from btruntime.events import NodeSnapshot, NodeStatus, RunResult, TickRecord, TreeSnapshot, structure

FORMAT, VERSION = "btruntime-flight", 1
UNSEEN = (NodeStatus.INVALID, "")
"""Status and feedback that a node is taken to have until a tick line says otherwise."""

_DECIMALS = 6  # of seconds, radians, metres: below what any sensor or actuator resolves
_DEEPEST = 12
_Object = dict[str, object]


def header(run: Mapping[str, object]) -> bytes:
    """The first line."""
    line = {"kind": "header", "format": FORMAT, "version": VERSION, "created_utc": _now_utc(), "run": dict(run)}
    return encode(line)


def event(name: str, data: Mapping[str, object]) -> bytes:
    """Something that happened between two ticks, now."""
    return encode({"kind": "event", "at_utc": _now_utc(), "name": name, "data": dict(data)})


class Lines:
    """Turns records into lines; knows what the lines so far say, so that only differences are written."""

    def __init__(self) -> None:
        self._shape: TreeSnapshot | None = None
        self._written: dict[str, tuple[NodeStatus, str]] = {}
        self._nodes: tuple[NodeSnapshot, ...] = ()
        self._dropped = 0

    def dropped(self, total: int) -> bytes:
        """What was dropped since the last call, if anything; `total` counts from the start."""
        count, self._dropped = total - self._dropped, total
        return encode({"kind": "dropped", "count": count}) if count else b""

    def tick(self, record: TickRecord) -> bytes:
        """One tick; its structure before it where that is news."""
        return self._structure(record.tree) + encode(self._tick(record))

    def result(self, result: RunResult) -> bytes:
        """The last line."""
        return encode({"kind": "result", **_fields(result)})

    def _structure(self, tree: TreeSnapshot) -> bytes:
        if self._shape is not None and (tree.nodes is self._nodes or tree.same_shape(self._shape)):
            return b""
        self._shape, self._nodes, self._written = tree, (), {}
        names = ("id", "name", "type", "class_name", "memory", "children")
        nodes = [dict(zip(names, structure(node), strict=True)) for node in tree.nodes]
        return encode({"kind": "tree", "tick": tree.tick, "nodes": nodes})

    def _tick(self, record: TickRecord) -> _Object:
        line: _Object = {
            "kind": "tick",
            "tick": record.tick,
            "time_s": round(record.time_s, _DECIMALS),
            "lateness_s": round(record.lateness_s, _DECIMALS),
            "work_s": round(record.work_s, _DECIMALS),
            "ages": {sensor: round(age, _DECIMALS) for sensor, age in record.ages.items()},
            "asked": _rounded_by_name(record.asked),
            "sent": _rounded(record.sent),
            "holding": record.holding,
            "states": self._states(record.tree),
        }
        return {key: value for key, value in line.items() if value is not None and value != []}

    def _states(self, tree: TreeSnapshot) -> list[tuple[str, NodeStatus, str]]:
        if tree.nodes is self._nodes:
            return []
        self._nodes = tree.nodes
        changed = []
        for node in tree.nodes:
            state = (node.status, node.feedback)
            if self._written.get(node.id, UNSEEN) != state:
                self._written[node.id] = state
                changed.append((node.id, *state))
        return changed


def encode(line: _Object) -> bytes:
    """One line of a recording, its line end included: ASCII, every number finite."""
    notes: dict[str, str] = {}
    content = _finite(plain_json(line), "", notes)
    if notes and isinstance(content, dict):
        content["nonfinite"] = notes
    return json.dumps(content, separators=(",", ":"), allow_nan=False).encode("ascii") + b"\n"


def plain_json(value: object, depth: int = 0) -> object:
    """`value` in the types of JSON (floats may still be NaN or infinite); what has no such form is its type's name."""
    if value is None or (isinstance(value, bool | int | float | str) and not isinstance(value, Enum)):
        return value
    if isinstance(value, Enum):
        return plain_json(value.value, depth)
    if isinstance(value, np.ndarray | np.generic):
        return plain_json(value.tolist(), depth + 1)
    if isinstance(value, Path | BaseException | date):
        return str(value)
    if depth < _DEEPEST:
        if is_dataclass(value) and not isinstance(value, type):
            return {name: plain_json(each, depth + 1) for name, each in _fields(value).items()}
        if isinstance(value, Mapping):
            return {str(key): plain_json(each, depth + 1) for key, each in value.items()}
        if isinstance(value, list | tuple | Set):
            return [plain_json(each, depth + 1) for each in value]
        if callable(dump := getattr(value, "model_dump", None)):
            return plain_json(dump(mode="json"), depth + 1)
    return f"<{type(value).__qualname__}>"


def _finite(value: object, pointer: str, notes: dict[str, str]) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        notes[pointer] = repr(value)
        return None
    if isinstance(value, dict):
        return {k: _finite(v, f"{pointer}/{k.replace('~', '~0').replace('/', '~1')}", notes) for k, v in value.items()}
    if isinstance(value, list):
        return [_finite(each, f"{pointer}/{index}", notes) for index, each in enumerate(value)]
    return value


def _fields(instance: object) -> _Object:
    """One level of a dataclass; `dataclasses.asdict` would deep-copy, which a read-only mapping refuses."""
    return {field.name: getattr(instance, field.name) for field in fields(instance)}  # type: ignore[arg-type]


def _rounded_by_name(numbers: Mapping[str, float] | None) -> _Object | None:
    return None if numbers is None else {name: round(number, _DECIMALS) for name, number in numbers.items()}


def _rounded(values: tuple[float, ...] | None) -> list[float] | None:
    return None if values is None else [round(value, _DECIMALS) for value in values]


def _now_utc() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
