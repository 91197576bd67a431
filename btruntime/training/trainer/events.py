"""What the trainer tells whoever watches: plain data, and its form as a line of JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Note:
    """A sentence for a person."""

    event: ClassVar[str] = "note"
    text: str


@dataclass(frozen=True, slots=True)
class Preparing:
    """Decoding and resizing frames, once for all runs: episodes done so far."""

    event: ClassVar[str] = "preparing"
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Estimate:
    """How long the run will take, before it begins."""

    event: ClassVar[str] = "estimate"
    seconds_per_step: float
    total_s: float


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run is. Losses are of the last batch, in normalised units; `l1` is the error of the actions."""

    event: ClassVar[str] = "progress"
    step: int
    total: int
    loss: float
    l1: float
    kl: float
    lr: float
    steps_per_s: float
    eta_s: float


@dataclass(frozen=True, slots=True)
class Validated:
    """The error on held-out episodes: normalised, and per action dimension in its unit."""

    event: ClassVar[str] = "validated"
    step: int
    l1: float
    l1_by_dim: Mapping[str, float]
    best: bool


@dataclass(frozen=True, slots=True)
class Saved:
    """A checkpoint is on disk, under this path within the skill's directory."""

    event: ClassVar[str] = "saved"
    step: int
    checkpoint: str


@dataclass(frozen=True, slots=True)
class Finished:
    """The run is complete."""

    event: ClassVar[str] = "finished"
    run_id: str
    checkpoint: str
    l1: float | None


Event = Note | Preparing | Estimate | Progress | Validated | Saved | Finished
Report = Callable[[Event], None]


def event_line(event: Event) -> str:
    """One line of JSON, the kind of event under "event"."""
    return json.dumps({"event": event.event, **dataclasses.asdict(event)})


def silent(event: Event) -> None:
    """A `Report` that nobody reads."""
