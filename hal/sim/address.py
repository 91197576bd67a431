"""`sim:[VARIANT][?seed=N&task=pick&fault=NAME&delay=SECONDS]`: the simulated robot by its address."""

from __future__ import annotations

from hal.clock import Clock
from hal.connect import Address
from hal.robot import RobotError
from hal.sim.faults import Fault
from hal.sim.pick import PickTask
from hal.sim.robot import SimRobot
from hal.sim.scene import SceneSpec
from hal.sim.specs import demo_spec, reference_spec

_VARIANTS = {"": reference_spec, "reference": reference_spec, "demo": demo_spec}
_OPTIONS = ("seed", "task", "fault", "delay")


def connect_sim(address: Address, clock: Clock) -> SimRobot:
    """The simulated robot.

    Options: `seed` of scene and noise (default 0); `task` whose scene is laid out ("pick" or "none"); `fault`
    (repeatable, see `hal.sim.faults`); `delay` of the cameras in seconds.

    Raises:
        RobotError: an unknown variant, option or task, or a number that is none.
        FaultError: a fault is not understood.
    """
    address.refuse_unknown(*_OPTIONS)
    if address.path not in _VARIANTS:
        known = ", ".join(name for name in _VARIANTS if name)
        raise RobotError(f"there is no simulated robot {address.path!r}; there is {known}.")
    seed, delay_s = _whole(address, "seed", "0"), _number(address, "delay", "0.01")
    task = address.options.get("task", ("pick",))[-1]
    if task not in ("pick", "none"):
        raise RobotError(f"sim: has no task {task!r}; it has pick and none.")
    scene = PickTask().scene(seed) if task == "pick" else SceneSpec()
    robot = SimRobot(_VARIANTS[address.path](), clock, scene=scene, seed=seed, camera_delay_s=delay_s)
    for text in address.options.get("fault", ()):
        robot.inject(Fault.parse(text))
    return robot


def _whole(address: Address, option: str, default: str) -> int:
    value = _number(address, option, default)
    if not value.is_integer():
        raise RobotError(f"sim: option {option}={value!r} is not a whole number.")
    return int(value)


def _number(address: Address, option: str, default: str) -> float:
    text = address.options.get(option, (default,))[-1]
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0 <= value < 1e9:
        raise RobotError(f"sim: option {option}={text!r} is not a number of 0 or more.")
    return value
