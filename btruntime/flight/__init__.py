"""The flight recorder: what a run did, tick by tick, on disk as JSON lines, and its reader."""

from btruntime.flight.reader import Flight, FlightEvent, FlightSummary, NodeDuration, StateChange, read_flight
from btruntime.flight.recorder import FlightError, FlightRecorder, new_flight_path

__all__ = [
    "Flight",
    "FlightError",
    "FlightEvent",
    "FlightRecorder",
    "FlightSummary",
    "NodeDuration",
    "StateChange",
    "new_flight_path",
    "read_flight",
]
