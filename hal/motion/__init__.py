"""The gate that every motion passes: leases, limits, interpolation, watchdog, stop latch."""

from hal.motion.config import GateConfig, GateReport, Submitted
from hal.motion.gate import GateClosedError, MotionGate
from hal.motion.lease import Lease, Resource
from hal.motion.limits import ActionBinding, bind_action

__all__ = [
    "ActionBinding",
    "GateClosedError",
    "GateConfig",
    "GateReport",
    "Lease",
    "MotionGate",
    "Resource",
    "Submitted",
    "bind_action",
]
