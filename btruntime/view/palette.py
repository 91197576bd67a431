"""The colours of the statuses in pictures; dark text on light boxes, so they stand on light and on dark pages."""

from __future__ import annotations

from dataclasses import dataclass

from btruntime.events import NodeStatus


@dataclass(frozen=True, slots=True)
class Colours:
    """Colours of one box, as `#rrggbb`."""

    line: str
    fill: str
    text: str


PALETTE = {
    NodeStatus.SUCCESS: Colours("#2da44e", "#e6f8ea", "#116329"),
    NodeStatus.FAILURE: Colours("#cf222e", "#fff0ee", "#a40e26"),
    NodeStatus.RUNNING: Colours("#0969da", "#e3f2ff", "#0a3069"),
    NodeStatus.INVALID: Colours("#afb8c1", "#f6f8fa", "#57606a"),
}
