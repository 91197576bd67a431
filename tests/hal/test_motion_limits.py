"""The static filter and the interpolator, alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hal.motion import GateConfig, bind_action
from hal.motion.interpolator import reachable_speed
from hal.types import ActionDim, ActionKind, ActionSpec, RobotSpec, SpecError

GRIPPER = ActionDim(name="grip", kind=ActionKind.GRIPPER, unit="1", target="hand")


def spec_of(*dims: ActionDim) -> ActionSpec:
    return ActionSpec(dims=dims)


@pytest.fixture
def robot(make_bench) -> RobotSpec:
    return make_bench().spec


def dim(kind: ActionKind, unit: str, target: str | None, name: str = "x") -> ActionDim:
    return ActionDim(name=name, kind=kind, unit=unit, target=target)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (dim(ActionKind.JOINT_POSITION, "rad", "elbow"), "elbow.*bench has shoulder, slide, hand"),
        (dim(ActionKind.JOINT_POSITION, "rad", None), "None"),
        (dim(ActionKind.JOINT_POSITION, "1", "shoulder"), "expected rad or m"),
        (dim(ActionKind.JOINT_VELOCITY, "rad", "shoulder"), "expected rad/s or m/s"),
        (dim(ActionKind.BASE_VELOCITY, "rad/s", "linear"), "expected m/s"),
        (dim(ActionKind.BASE_VELOCITY, "m/s", "sideways"), "expected linear or angular"),
    ],
)
def test_an_action_that_does_not_fit_is_refused(robot, wrong, says):
    with pytest.raises(SpecError, match=says):
        bind_action(spec_of(wrong), robot)


def test_base_without_base_and_two_dims_on_one_joint(make_bench, robot):
    base = dim(ActionKind.BASE_VELOCITY, "m/s", "linear")
    with pytest.raises(SpecError, match="has none"):
        bind_action(spec_of(base), make_bench(base=False).spec)
    position = dim(ActionKind.JOINT_POSITION, "rad", "shoulder", "p")
    velocity = dim(ActionKind.JOINT_VELOCITY, "rad/s", "shoulder", "v")
    with pytest.raises(SpecError, match="p and v both move 'shoulder'"):
        bind_action(spec_of(position, velocity), robot)


def test_gripper_as_a_fraction_of_its_range(robot):
    binding = bind_action(spec_of(GRIPPER), robot)
    for fraction, position in ((0.0, -0.35), (0.5, 0.25), (1.0, 0.85)):
        values, violations = binding.clip(binding.values(np.array([fraction])), GateConfig())
        assert values == pytest.approx([position])
        assert not violations
        assert binding.action(values, np.array([9.0])) == pytest.approx([fraction])
    values, violations = binding.clip(binding.values(np.array([1.5])), GateConfig())
    assert values == pytest.approx([0.85])
    assert [violation.reason for violation in violations] == ["position"]


def test_rounding_is_clipped_but_not_counted(robot):
    binding = bind_action(robot.action_spec(base=True, progress=False), robot)
    values, violations = binding.clip(np.array([2.0 + 1e-4, 0.1, 0.0, 0.4 + 1e-5, 0.0]), GateConfig())
    assert values[0] == 2.0
    assert values[3] == 0.4
    assert not violations


def test_excess_is_named_and_only_a_large_one_is_serious(robot):
    binding = bind_action(robot.action_spec(base=True, progress=False), robot)
    values, violations = binding.clip(np.array([2.02, -10.0, 0.0, 10.0, -9.0]), GateConfig())
    assert values == pytest.approx([2.0, 0.0, 0.0, 0.4, -2.0])
    assert [(v.reason, v.serious) for v in violations] == [
        ("position", False), ("position", True), ("base", True), ("base", True),
    ]  # fmt: skip
    assert "slide was asked -10, limits 0 to 0.3" in violations[1].text


def braking_distance(speed: float, step: float, dt: float) -> float:
    distance = 0.0
    while speed > 0:
        distance += speed * dt
        speed -= step
    return distance


@given(distance=st.floats(1e-9, 10), acceleration=st.floats(0.01, 1000), rate=st.floats(10, 1000))
def test_reachable_speed_is_the_exact_inverse_of_braking(distance, acceleration, rate):
    dt = 1 / rate
    step = acceleration * dt
    speed = float(reachable_speed(np.array([distance]), np.array([step]), dt)[0])
    if speed / step > 10_000:
        return
    assert braking_distance(speed, step, dt) == pytest.approx(distance, rel=1e-6)
