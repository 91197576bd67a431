"""Faults that can be injected into the simulated robot by name, to see what everything above does about them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from foundation.errors import BtruntimeError

KINDS = {
    "freeze": "a camera delivers no newer frame (freeze:CAMERA)",
    "late": "a camera delivers each frame that many seconds late (late:CAMERA:SECONDS)",
    "drop_joints": "joint states stop arriving",
    "nan_joints": "joint states are NaN",
    "slow": "joint states arrive that many seconds late (slow:SECONDS)",
    "gone": "the robot stops answering altogether",
}
_FORM = re.compile(
    r"(?P<kind>[a-z_]+)(:(?P<camera>[A-Za-z_][\w.\-]*))?(:(?P<seconds>\d+(\.\d+)?))?(@(?P<at>\d+(\.\d+)?))?"
)


class FaultError(BtruntimeError):
    """A fault's name is not understood."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault. `at_s` is when it begins, in seconds after it was injected."""

    kind: str
    camera: str | None = None
    seconds: float = 0.0
    at_s: float = 0.0

    @classmethod
    def parse(cls, text: str) -> Fault:
        """Read `kind[:camera][:seconds][@start]`, for example `freeze:arm_camera@3.5`.

        Raises:
            FaultError: the text has another form or names no known kind.
        """
        match = _FORM.fullmatch(text)
        if match is None or match["kind"] not in KINDS:
            known = "; ".join(f"{kind}: {what}" for kind, what in KINDS.items())
            raise FaultError(f"fault {text!r} is not understood. Known: {known}. Add @SECONDS to start it later.")
        needs_camera, needs_seconds = match["kind"] in ("freeze", "late"), match["kind"] in ("late", "slow")
        if needs_camera != (match["camera"] is not None) or needs_seconds != (match["seconds"] is not None):
            raise FaultError(f"fault {text!r} has the wrong parts: {match['kind']} means {KINDS[match['kind']]}.")
        return cls(match["kind"], match["camera"], float(match["seconds"] or 0.0), float(match["at"] or 0.0))


@dataclass
class Faults:
    """The faults in force. Cheap to ask each step."""

    _active: dict[Fault, float] = field(default_factory=dict)

    def inject(self, fault: Fault, now_s: float) -> None:
        """Let a fault begin `fault.at_s` from now."""
        self._active = {**self._active, fault: now_s + fault.at_s}

    def heal(self) -> None:
        """End all faults."""
        self._active = {}

    def find(self, kind: str, now_s: float, camera: str | None = None) -> Fault | None:
        """The fault of that kind that is in force, or None."""
        for fault, begins_s in self._active.items():
            if fault.kind == kind and fault.camera == camera and now_s >= begins_s:
                return fault
        return None
