"""How a skill, and so a run, can end."""

from __future__ import annotations

from enum import StrEnum


class Outcome(StrEnum):
    """A run ends in exactly one of these.

    DONE is the only success. TIMEOUT: a policy with a progress output ran out of time. STALLED: it stopped making
    progress. CANCELLED: somebody stopped it. FAULT: a sensor, the robot, the policy or a limit; the reason says.
    """

    DONE = "done"
    TIMEOUT = "timeout"
    STALLED = "stalled"
    CANCELLED = "cancelled"
    FAULT = "fault"
