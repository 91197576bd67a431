"""The trainer's events as progress and sentences for a person."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any


def told_to(reach: Callable[[float, str], None], say: Callable[[str], None]) -> Callable[[Mapping[str, Any]], None]:
    """Turns the trainer's events into progress (a share of 1) and lines for a person."""

    def show(event: Mapping[str, Any]) -> None:
        kind = event.get("event")
        if kind == "progress":
            note = f"step {event['step']} of {event['total']}, l1 {event['l1']:.3f}, {event['eta_s']:.0f} s left"
            reach(event["step"] / event["total"], note)
        elif kind == "preparing":
            reach(0.0, f"preparing frames, episode {event['done']} of {event['total']}")
        elif kind == "estimate":
            say(f"about {event['total_s'] / 60:.1f} minutes, {event['seconds_per_step']:.3f} s a step")
        elif kind == "validated":
            judges = "error on the episodes that choose the checkpoint"
            say(f"step {event['step']}: {judges} {event['l1']:.3f} standard deviations")
        elif kind == "note":
            say(str(event["text"]))

    return show
