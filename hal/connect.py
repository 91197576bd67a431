"""From an address such as `sim:demo?seed=3` to a robot, through a registry that other packages can extend.

A package adds a kind of robot with an entry point of the group `btruntime.robots`: its name is the address's
scheme, its object is called with (`Address`, `Clock`) and returns a `Robot` that has not been started.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from urllib.parse import parse_qsl

from hal.clock import Clock
from hal.robot import Robot, RobotError

ROBOTS_GROUP = "btruntime.robots"
RobotFactory = Callable[["Address", Clock], Robot]


@dataclass(frozen=True, slots=True)
class Address:
    """`scheme:path?key=value&...`; a key may be repeated."""

    scheme: str
    path: str
    options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read an address.

        Raises:
            RobotError: there is no scheme, or an option has no value.
        """
        scheme, colon, rest = text.partition(":")
        if not colon or not scheme.replace("-", "").replace("_", "").isalnum():
            raise RobotError(f'robot address {text!r} has no scheme, expected for example "sim:" or "sim:demo?seed=3".')
        path, _, query = rest.partition("?")
        try:
            pairs = parse_qsl(query, strict_parsing=True, keep_blank_values=True) if query else []
        except ValueError:
            raise RobotError(f"robot address {text!r}: options are not of the form key=value&key=value.") from None
        options: dict[str, tuple[str, ...]] = {}
        for key, value in pairs:
            options[key] = (*options.get(key, ()), value)
        return cls(scheme, path, options)

    def refuse_unknown(self, *known: str) -> None:
        """Refuse options that the robot does not know.

        Raises:
            RobotError: there are some; the error names them and those there are.
        """
        unknown = sorted(set(self.options) - set(known))
        if unknown:
            raise RobotError(f"robot {self.scheme}: has no option {', '.join(unknown)}; it has {', '.join(known)}.")


def schemes() -> tuple[str, ...]:
    """The kinds of robot that are installed."""
    return tuple(sorted({point.name for point in entry_points(group=ROBOTS_GROUP)}))


def connect(text: str, clock: Clock) -> Robot:
    """The robot at an address, not started.

    Raises:
        RobotError: the address is malformed or names no installed kind of robot, or its package cannot be loaded.
    """
    address = Address.parse(text)
    for point in entry_points(group=ROBOTS_GROUP, name=address.scheme):
        try:
            factory: RobotFactory = point.load()
        except (ImportError, AttributeError) as error:
            raise RobotError(
                f"robot kind {address.scheme!r} cannot be loaded from {point.value}: {error}. "
                f"Install its package again, or what that needs."
            ) from error
        return factory(address, clock)
    raise RobotError(
        f"no robot of kind {address.scheme!r} is installed; there is {', '.join(schemes()) or 'none'}. "
        f"A package adds one with an entry point in the group {ROBOTS_GROUP}."
    )
