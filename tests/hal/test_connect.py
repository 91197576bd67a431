"""From addresses to robots."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hal.clock import VirtualClock
from hal.connect import Address, connect, schemes
from hal.robot import RobotError
from hal.sim.address import connect_sim
from hal.sim.faults import FaultError
from hal.sim.robot import SimRobot
from hal.types import SpecError


def sim(text: str) -> SimRobot:
    """A simulated robot, whether or not this checkout is installed."""
    return connect_sim(Address.parse(text), VirtualClock())


def test_an_address_has_scheme_path_and_options():
    address = Address.parse("sim:demo?seed=3&fault=gone&fault=slow:1@2")
    assert (address.scheme, address.path) == ("sim", "demo")
    assert address.options == {"seed": ("3",), "fault": ("gone", "slow:1@2")}
    assert Address.parse("my-arm:/dev/ttyUSB0") == Address("my-arm", "/dev/ttyUSB0")
    assert Address.parse("sim:").options == {}


@pytest.mark.parametrize("text", ["", "sim", ":demo", "a b:c", "../x:y"])
def test_without_a_scheme(text):
    with pytest.raises(RobotError, match='no scheme, expected for example "sim:"'):
        Address.parse(text)


@pytest.mark.parametrize("text", ["sim:?seed", "sim:demo?=&", "sim:?a=1&b"])
def test_options_without_values(text):
    with pytest.raises(RobotError, match="key=value"):
        Address.parse(text)


@given(st.text(max_size=40))
def test_any_text_is_an_address_or_refused(text):
    with suppress(RobotError):
        assert Address.parse(text).scheme


def test_the_simulated_robot_is_installed():
    assert "sim" in schemes()
    robot = connect("sim:demo?seed=3", VirtualClock())
    assert isinstance(robot, SimRobot)
    assert robot.spec.name == "demo"


def test_variants_scene_and_seed():
    assert sim("sim:").spec.name == "reference"
    assert sim("sim:reference?seed=2").scene.boxes == sim("sim:demo?seed=2").scene.boxes
    assert sim("sim:?seed=2").scene.boxes != sim("sim:?seed=3").scene.boxes
    assert not sim("sim:?task=none").scene.boxes


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("sim:moon", "no simulated robot 'moon'; there is reference, demo"),
        ("sim:?speed=2&colour=red", "no option colour, speed; it has seed, task, fault, delay"),
        ("sim:?task=juggle", "no task 'juggle'"),
        ("sim:?seed=three", "seed='three' is not a number"),
        ("sim:?seed=nan", "not a number"),
        ("sim:?seed=-1", "0 or more"),
        ("sim:?seed=1.5", "1.5 is not a whole number"),
        ("sim:?delay=", "delay='' is not a number"),
        ("sim:?delay=inf", "not a number"),
    ],
)
def test_wrong_options_are_named(text, says):
    with pytest.raises(RobotError, match=says):
        sim(text)


def test_faults_by_address():
    robot = sim("sim:?fault=slow:0.5@2&fault=freeze:arm_camera")
    robot.start()
    assert robot.faults.find("freeze", 0.0, "arm_camera")
    with pytest.raises(FaultError, match="melt"):
        sim("sim:?fault=melt")
    with pytest.raises(SpecError, match="nose"):
        sim("sim:?fault=freeze:nose")


def test_the_delay_is_that_of_the_cameras():
    clock = VirtualClock()
    robot = connect_sim(Address.parse("sim:demo?delay=0.04&task=none"), clock)
    robot.start()
    clock.sleep_until(0.03)
    assert not robot.read().images
    clock.sleep_until(0.05)
    assert len(robot.read().images) == 2


def test_an_unknown_scheme_lists_those_there_are():
    with pytest.raises(RobotError, match=r"no robot of kind 'ufo' is installed; there is .*sim.*btruntime\.robots"):
        connect("ufo:", VirtualClock())


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Another package, installed as pip would leave it, that brings two kinds of robot; one is broken."""
    (tmp_path / "acme_robots.py").write_text("def make(address, clock):\n    return ('acme', address, clock)\n")
    info = tmp_path / "acme_robots-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-robots\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[btruntime.robots]\nacme = acme_robots:make\nbroken = acme_missing:make\nhollow = acme_robots:nothing\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("acme_robots", None)


def test_another_package_adds_a_kind_of_robot(package):
    assert {"acme", "broken"} <= set(schemes())
    clock = VirtualClock()
    assert connect("acme:/dev/arm?port=7", clock) == ("acme", Address("acme", "/dev/arm", {"port": ("7",)}), clock)
    with pytest.raises(RobotError, match="there is acme, broken"):
        connect("ufo:", clock)


@pytest.mark.parametrize(("kind", "says"), [("broken", "acme_missing"), ("hollow", "nothing")])
def test_a_package_that_cannot_be_loaded_is_named(package, kind, says):
    with pytest.raises(RobotError, match=f"robot kind '{kind}' cannot be loaded from .*{says}"):
        connect(f"{kind}:", VirtualClock())
