"""Leases: who may move what, and what the gate remembers of each holder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from weakref import WeakSet

import numpy as np

from hal.motion.config import GateConfig
from hal.types import Array, RobotSpec, SpecError


class Resource(StrEnum):
    """What moves as one and has one holder at a time."""

    ARM = "arm"
    BASE = "base"


@dataclass(frozen=True, eq=False)
class Lease:
    """The right to move some resources; worthless once somebody else acquired one of them.

    Attributes:
        owner: for people.
        resources: what it may move.
        sensors: what the motion depends on; motion is held when one of them is stale.
    """

    owner: str
    resources: frozenset[Resource]
    sensors: tuple[str, ...]


def new_lease(spec: RobotSpec, owner: str, resources: Iterable[Resource], sensors: Iterable[str]) -> Lease:
    """A lease that makes sense on this robot; "joints" is always among its sensors.

    Raises:
        SpecError: the robot lacks a resource or a sensor.
        ValueError: no resource is asked for.
    """
    wanted = frozenset(Resource(resource) for resource in resources)
    if not wanted:
        raise ValueError(f"{owner} asks for a lease of nothing; name Resource.ARM or Resource.BASE.")
    needed = tuple(dict.fromkeys(("joints", *sensors)))
    if spec.base is None and (Resource.BASE in wanted or "base" in needed):
        raise SpecError(f"{owner} needs the base, and robot {spec.name} has none. Run it on a robot with a base.")
    for sensor in needed:
        if sensor not in ("joints", "base"):
            spec.camera(sensor)
    return Lease(owner, wanted, needed)


@dataclass(slots=True)
class Grant:
    """What the gate remembers of a lease while it is alive.

    Attributes:
        since_s: when it was acquired.
        stale_limits_s: by sensor, the ages at which to hold and to fail.
        target: (J,) last accepted joint targets; NaN where the last command gave none.
        commanded_s: when its last command was made; None while it holds (also before its first command).
        period_s: estimated time between commands; None before the second.
        fault: why it may not move any more; the first fault stays.
        stale: which sensor holds the motion now, as a sentence.
        watchdog: the commands have ceased.
        violated_since_s: by kind of violation, since when every command has had it.
        strayed_since_s: since when the arm has been far from its setpoint.
    """

    since_s: float
    stale_limits_s: Mapping[str, tuple[float, float]]
    target: Array
    commanded_s: float | None = None
    period_s: float | None = None
    fault: str | None = None
    stale: str | None = None
    watchdog: bool = False
    violated_since_s: dict[str, float] = field(default_factory=dict)
    strayed_since_s: float | None = None

    @classmethod
    def of(cls, lease: Lease, spec: RobotSpec, config: GateConfig, now_s: float) -> Grant:
        """A fresh one."""
        limits = {sensor: config.stale_limits_s(spec, sensor) for sensor in lease.sensors}
        return cls(since_s=now_s, stale_limits_s=limits, target=np.full(len(spec.joints), np.nan))

    @property
    def held(self) -> bool:
        """Its resources must be at rest, whatever it commands."""
        return self.fault is not None or self.stale is not None

    @property
    def holding(self) -> str | None:
        """Why its resources are held; None while it moves, or holds by its own wish."""
        if self.fault or self.stale:
            return self.fault or self.stale
        return "commands have ceased" if self.watchdog else None

    def blame(self, sentence: str) -> None:
        """Fault with this reason, unless there is one."""
        self.fault = self.fault or sentence

    def rest(self) -> None:
        """It holds by its own wish: no watchdog, no target to measure the next step from."""
        self.commanded_s = self.period_s = None
        self.watchdog = False
        self.violated_since_s.clear()
        self.target[:] = np.nan

    def time_command(self, stamp_s: float, config: GateConfig) -> float:
        """Note a command made at `stamp_s`; returns the estimated period of commands."""
        if self.commanded_s is None:
            self.commanded_s = stamp_s
            return config.command_period_s
        gap_s = min(max(stamp_s - self.commanded_s, config.command_period_min_s), config.command_period_max_s)
        # A quarter of the newest gap: single late commands hardly matter, a change of rate is followed in 10.
        self.period_s = gap_s if self.period_s is None else 0.75 * self.period_s + 0.25 * gap_s
        self.commanded_s = max(stamp_s, self.commanded_s)
        return self.period_s


class Leases:
    """Who holds what now: each resource has one holder at most, and a lease is alive while it holds all of its own.

    The gate's lock guards it.
    """

    def __init__(self) -> None:
        self._grants: dict[Lease, Grant] = {}
        self._holders: dict[Resource, Lease] = {}
        self._taken_over: WeakSet[Lease] = WeakSet()

    def alive(self) -> list[tuple[Lease, Grant]]:
        """All of them, oldest first."""
        return list(self._grants.items())

    def grant(self, lease: Lease | None) -> Grant | None:
        """What is remembered of a lease; None when it is dead."""
        return None if lease is None else self._grants.get(lease)

    def holder(self, resource: Resource) -> Lease | None:
        """Whose it is."""
        return self._holders.get(resource)

    def was_taken_over(self, lease: Lease) -> bool:
        """It died because somebody else acquired one of its resources."""
        return lease in self._taken_over

    def take_over(self, lease: Lease, grant: Grant) -> list[Lease]:
        """Make a lease alive; returns those that died by it."""
        died = [old for old in self._grants if old.resources & lease.resources]
        for old in died:
            self.end(old)
            self._taken_over.add(old)
        self._grants[lease] = grant
        self._holders.update(dict.fromkeys(lease.resources, lease))
        return died

    def end(self, lease: Lease) -> None:
        """Free what a living lease holds."""
        del self._grants[lease]
        for resource in lease.resources:
            del self._holders[resource]
