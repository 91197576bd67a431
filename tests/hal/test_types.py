"""Specs, observations, and what specs refuse."""

from __future__ import annotations

import math

import numpy as np
import pytest
from pydantic import ValidationError

from hal.types import (
    ActionDim,
    ActionKind,
    ActionSpec,
    BaseSpec,
    CameraSpec,
    Frame,
    GripperSpec,
    JointSpec,
    Observation,
    RobotSpec,
    Setpoint,
    SpecError,
)


def joint(name: str = "a", **changed: object) -> JointSpec:
    return JointSpec.model_validate(
        {"name": name, "low": -1, "high": 2, "max_speed": 3, "max_acceleration": 4} | changed
    )


def robot(**changed: object) -> RobotSpec:
    fields = {
        "name": "r",
        "joints": (joint("a"), joint("b", low=0, gripper=True)),
        "cameras": (CameraSpec(name="front", width=64, height=48, rate_hz=30),),
        "base": BaseSpec(max_linear_mps=0.4, max_angular_radps=2, max_linear_mps2=1, max_angular_radps2=4),
        "control_rate_hz": 200,
        "state_rate_hz": 200,
    }
    return RobotSpec.model_validate(fields | changed)


@pytest.mark.parametrize(
    "changed",
    [
        {"low": 2},
        {"low": math.nan},
        {"high": math.inf},
        {"max_speed": 0},
        {"max_acceleration": -1},
        {"name": "a b"},
        {"name": "a:b"},
        {"name": ""},
    ],
)
def test_a_joint_that_makes_no_sense_is_refused(changed):
    with pytest.raises(ValidationError):
        joint(**changed)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"joints": ()}, "at least 1"),
        ({"joints": (joint("a"), joint("a"))}, "two joints have the same name"),
        ({"cameras": [CameraSpec(name="joints", width=1, height=1, rate_hz=1)]}, "may not be called joints"),
        ({"cameras": [CameraSpec(name="base", width=1, height=1, rate_hz=1)]}, "may not be called base"),
        ({"control_rate_hz": 0}, "greater than 0"),
        ({"grippers": (GripperSpec(name="g"), GripperSpec(name="g"))}, "two grippers have the same name: g, g"),
        ({"grippers": (GripperSpec(name="b"),)}, "a gripper may not be called b; that names a joint"),
        ({"grippers": (GripperSpec(name="joints"),)}, "a gripper may not be called joints"),
        ({"grippers": (GripperSpec(name="base"),)}, "a gripper may not be called base"),
    ],
)
def test_a_robot_that_makes_no_sense_is_refused(changed, says):
    with pytest.raises(ValidationError, match=says):
        robot(**changed)


def test_limits_are_in_joint_order_and_cannot_be_changed():
    spec = robot()
    low, high = spec.position_limits
    assert (low.tolist(), high.tolist()) == ([-1, 0], [2, 2])
    assert spec.speed_limits.tolist() == [3, 3]
    assert spec.acceleration_limits.tolist() == [4, 4]
    for array in (low, high, spec.speed_limits, spec.acceleration_limits):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 100


def test_specs_are_frozen_and_survive_json():
    spec = robot()
    with pytest.raises(ValidationError):
        spec.name = "other"
    again = RobotSpec.model_validate_json(spec.model_dump_json())
    assert again == spec
    assert spec.speed_limits.shape == (2,)
    assert again == spec  # the cached arrays are no part of it
    actions = spec.action_spec(base=True, progress=True)
    assert ActionSpec.model_validate_json(actions.model_dump_json()) == actions


def test_a_changed_copy_keeps_nothing_of_the_old_and_is_validated():
    spec = robot()
    assert spec.joint_names == ("a", "b")
    assert spec.speed_limits.tolist() == [3, 3]
    changed = spec.model_copy(update={"joints": (joint("c", max_speed=1),)})
    assert changed.joint_names == ("c",)
    assert changed.speed_limits.tolist() == [1]
    assert spec.joint_names == ("a", "b")
    with pytest.raises(ValidationError):
        spec.model_copy(update={"joints": ()})


def test_a_camera_that_is_missing_is_named_with_those_there_are():
    assert robot().camera("front").rate_hz == 30
    with pytest.raises(SpecError, match="no camera 'side'; it has front"):
        robot().camera("side")


def test_action_spec_of_a_robot():
    spec = robot().action_spec(base=True, progress=True)
    assert spec.names == ("a", "b", "base_linear", "base_angular", "progress", "termination")
    assert [dim.kind for dim in spec.dims[:2]] == [ActionKind.JOINT_POSITION, ActionKind.GRIPPER]
    assert spec.indices(ActionKind.BASE_VELOCITY).tolist() == [2, 3]
    assert spec.index(ActionKind.PROGRESS) == 4
    assert spec.index(ActionKind.JOINT_VELOCITY) is None
    assert (spec.dims[2].low, spec.dims[2].high) == (-0.4, 0.4)
    assert robot().action_spec(base=False, progress=False).size == 2
    with pytest.raises(SpecError, match="has no base"):
        robot(base=None).action_spec(base=True, progress=False)


@pytest.mark.parametrize("rate", [0, -1, math.nan, math.inf])
def test_a_gripper_that_makes_no_sense_is_refused(rate):
    with pytest.raises(ValidationError, match="max_rate_per_s"):
        GripperSpec(name="claw", max_rate_per_s=rate)


def test_grippers_that_are_not_joints_come_after_the_joints():
    spec = robot(grippers=(GripperSpec(name="claw"), GripperSpec(name="suction", max_rate_per_s=20)))
    assert spec.gripper_names == ("claw", "suction")
    assert spec.gripper_rates.tolist() == [5, 20]
    with pytest.raises(ValueError, match="read-only"):
        spec.gripper_rates[0] = 100
    actions = spec.action_spec(base=True, progress=True)
    assert actions.names == ("a", "b", "claw", "suction", "base_linear", "base_angular", "progress", "termination")
    assert actions.dims[3] == ActionDim(
        name="suction", kind=ActionKind.GRIPPER, unit="1", target="suction", low=0, high=1
    )
    assert spec.action_spec(base=False, progress=False, grippers=False).names == ("a", "b")
    assert RobotSpec.model_validate_json(spec.model_dump_json()) == spec
    assert robot().gripper_names == ()
    assert Setpoint(np.zeros(2), None, 0.0).grippers is None


def test_a_spec_from_before_there_were_such_grippers_is_read():
    old = robot().model_dump(mode="json")
    del old["grippers"]
    assert RobotSpec.model_validate(old) == robot()


def test_an_action_spec_with_two_equal_names_is_refused():
    dim = ActionDim(name="a", kind=ActionKind.PROGRESS, unit="1")
    with pytest.raises(ValidationError, match="same name"):
        ActionSpec(dims=(dim, dim))
    with pytest.raises(ValidationError):
        ActionSpec(dims=())


def test_ages_of_the_parts_of_an_observation():
    frame = Frame(np.zeros((2, 2, 3), np.uint8), captured_s=9.0)
    observation = Observation(10.0, np.zeros(2), np.zeros(2), joints_s=9.5, images={"front": frame})
    assert observation.age_s("joints", 10.5) == 1.0
    assert observation.age_s("front", 10.5) == 1.5
    assert observation.age_s("wrist", 10.5) == math.inf
    assert observation.age_s("base", 10.5) == math.inf
