"""Kinematics of the reference arm."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hal.sim import arm
from hal.sim.specs import reference_spec

LOW, HIGH = reference_spec().position_limits
JOINTS = st.tuples(*(st.floats(low, high) for low, high in zip(LOW, HIGH, strict=True))).map(np.array)


def horizontal_reach(pose: arm.ArmPose) -> float:
    """How far the tool is in front of the arm's vertical axis; negative behind it."""
    return float((pose.tool - arm.SHOULDER_YAW) @ pose.links[0][0][:, 0])


@given(JOINTS)
def test_the_inverse_of_a_reachable_pose_leads_back_to_it(qpos):
    pose = arm.forward(qpos)
    assume(horizontal_reach(pose) > 0.01)
    pitch = qpos[1:4].sum()
    found = arm.inverse(pose.tool, pitch_rad=pitch, roll_rad=qpos[4])
    again = arm.forward(np.append(found, qpos[5]))
    assert again.tool == pytest.approx(pose.tool, abs=1e-9)
    assert again.links[-1][0] == pytest.approx(pose.links[-1][0], abs=1e-6)


@given(JOINTS)
def test_with_the_elbow_up_even_the_joints_are_the_same(qpos):
    pose = arm.forward(qpos)
    assume(horizontal_reach(pose) > 0.01)
    assume(qpos[2] > -1.30)  # below, the fore arm is bent upwards: elbow down
    assert arm.inverse(pose.tool, pitch_rad=qpos[1:4].sum(), roll_rad=qpos[4]) == pytest.approx(qpos[:5], abs=1e-6)


@given(JOINTS)
def test_links_are_rigid_and_right_handed(qpos):
    pose = arm.forward(qpos)
    for rotation, _ in pose.links:
        assert rotation @ rotation.T == pytest.approx(np.eye(3), abs=1e-12)
        assert np.linalg.det(rotation) == pytest.approx(1.0)
    gaps = [np.linalg.norm(b[1] - a[1]) for a, b in zip(pose.links, pose.links[1:], strict=False)]
    lengths = [np.linalg.norm(v) for v in (arm.TO_SHOULDER, arm.TO_ELBOW, arm.TO_WRIST, arm.TO_ROLL)]
    assert gaps == pytest.approx(lengths)


def test_link_lengths_add_up_to_the_documented_reach():
    lengths = (np.linalg.norm(arm.TO_ELBOW), np.linalg.norm(arm.TO_WRIST), arm.TO_ROLL[0], arm.TOOL_X)
    assert sum(lengths) == pytest.approx(0.373, abs=5e-4)
    # Stretched straight out, that is how far the tool is from the shoulder.
    upper = np.arctan2(arm.TO_ELBOW[2], arm.TO_ELBOW[0])
    fore = np.arctan2(arm.TO_WRIST[2], arm.TO_WRIST[0])
    pose = arm.forward(np.array([0.0, upper, fore - upper, -fore, 0.0, 0.0]))
    shoulder = arm.SHOULDER_YAW + arm.TO_SHOULDER
    assert np.linalg.norm(pose.tool - shoulder) == pytest.approx(0.373, abs=5e-4)


def test_positive_angles_turn_left_and_pitch_down():
    level = arm.forward(np.zeros(6))
    assert arm.forward(np.array([0.3, 0, 0, 0, 0, 0])).tool[1] > level.tool[1]
    for joint in (1, 2, 3):
        assert arm.forward(np.eye(6)[joint] * 0.3).tool[2] < level.tool[2]


@pytest.mark.parametrize("tool", [(1.0, 0.0, 0.1), (0.2, -0.05, 0.6), (np.nan, 0.0, 0.0)])
def test_out_of_reach_says_where_and_how_far(tool):
    with pytest.raises(
        arm.OutOfReachError, match=r"cannot reach .* at pitch 1\.57 rad: .* m from the shoulder.*0\.262"
    ):
        arm.inverse(np.array(tool), pitch_rad=np.pi / 2)


@given(st.floats(0.0, 0.99), st.floats(-3, 3))
def test_at_the_very_end_of_the_reach_nothing_is_nan(share, yaw):
    reach = np.linalg.norm(arm.TO_ELBOW) + np.linalg.norm(arm.TO_WRIST)
    for scale in (1 - 1e-15, 1 - 1e-16, 1.0, 1 + 1e-16):
        flat = (reach * scale + arm.TO_ROLL[0] + arm.TOOL_X) * np.array([np.cos(yaw), np.sin(yaw), 0.0])
        try:
            found = arm.inverse(arm.SHOULDER_YAW + arm.TO_SHOULDER + flat, pitch_rad=0.0)
        except arm.OutOfReachError:
            continue
        assert np.isfinite(found).all()


@given(st.floats(0.0, 0.8727))
def test_gripper_angle_and_gap_are_inverse(angle):
    assert arm.gripper_rad(arm.half_gap_m(angle)) == pytest.approx(angle, abs=1e-6)


def test_a_gripper_pressed_shut_has_no_gap():
    assert arm.half_gap_m(-0.3491) == 0.0
    assert arm.gripper_rad(0.0) == 0.0
    assert arm.gripper_rad(1.0) == pytest.approx(np.pi / 2)
