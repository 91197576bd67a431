"""What the gripper does to a box: push it, land on it, hold it, carry it, drop it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hal.sim import arm
from hal.sim.scene import FINGER_THICKNESS, Box, Scene, SceneSpec, grip_angle_rad, lowest_point_m

DT_S = 0.01
EDGE_M = 0.03
HALF_M = EDGE_M / 2
GRASP_M = 0.014
OPEN_M = 0.027


def cube(x: float = 0.2, y: float = 0.0, yaw: float = 0.0, name: str = "cube") -> Box:
    return Box(name, (EDGE_M,) * 3, (x, y, HALF_M), yaw, (1.0, 0.0, 0.0))


class Hand:
    """A gripper that points straight down, moved in steps that a robot could do."""

    def __init__(self, *boxes: Box, at: tuple[float, float, float], half_gap_m: float = OPEN_M):
        self.scene = Scene(SceneSpec(boxes))
        self.at, self.half_gap_m = np.array(at), half_gap_m
        self.allowed_m = self.step()

    @property
    def box(self) -> Box:
        return self.scene.boxes[0]

    def step(self) -> float:
        rotation = arm.rotation_y(np.pi / 2)
        origin = self.at - rotation[:, 0] * arm.TOOL_X
        self.allowed_m = self.scene.step((rotation, origin), self.half_gap_m, DT_S)
        return self.allowed_m

    def move(self, x: float, y: float, z: float) -> Hand:
        way = np.array([x, y, z]) - self.at
        steps = int(np.ceil(np.linalg.norm(way) / 0.002))
        for start in [self.at] if steps else []:
            for k in range(steps):
                self.at = start + way * (k + 1) / steps
                self.step()
        return self

    def close(self, half_gap_m: float = 0.0) -> Hand:
        """Close as far as boxes allow; the fingers never get past what `step` allowed."""
        while self.half_gap_m > half_gap_m:
            wanted = max(self.half_gap_m - 0.001, half_gap_m)
            self.half_gap_m = wanted
            if self.step() > wanted:
                self.half_gap_m = self.allowed_m
                break
        return self

    def open(self) -> Hand:
        while self.half_gap_m < OPEN_M:
            self.half_gap_m += 0.001
            self.step()
        return self


@pytest.mark.parametrize("half_gap_m", [0.0, 0.003, OPEN_M])
@pytest.mark.parametrize(("dx", "dy"), [(1, 0), (-1, 0), (0, 1), (0, -1), (0.6, 0.8)])
def test_a_finger_that_sweeps_against_a_box_pushes_it(dx, dy, half_gap_m):
    along = np.array([dx, dy])
    hand = Hand(cube(), at=(0.2 - 0.09 * dx, -0.09 * dy, GRASP_M), half_gap_m=half_gap_m)
    if half_gap_m == OPEN_M and dy == 0:
        hand.at[1] += OPEN_M  # else the box passes between the fingers
    side = hand.at[1]
    for k in range(1, 61):
        before = np.array(hand.box.centre[:2])
        hand.move(0.2 + (-0.09 + 0.003 * k) * dx, side + 0.003 * k * dy, GRASP_M)
        assert (np.array(hand.box.centre[:2]) - before) @ along >= -1e-3
        assert np.linalg.norm(np.array(hand.box.centre[:2]) - before) < 0.02
    assert hand.scene.held is None
    moved = np.array(hand.box.centre[:2]) - [0.2, 0.0]
    assert moved @ along > 0.03 or abs(moved @ [-dy, dx]) > HALF_M  # ahead of the finger, or slid off to a side


@pytest.mark.parametrize("y", [-0.004, -0.001, 0.0, 0.002, 0.004])
def test_closed_fingers_swept_sideways_do_not_grasp(y):
    """Found in review: fingers that were shut went through the side of the box and then held it."""
    hand = Hand(cube(), at=(0.2 + y, -0.09, GRASP_M), half_gap_m=0.0)
    for k in range(60):
        hand.move(0.2 + y, -0.09 + 0.003 * k, GRASP_M)
        assert hand.scene.held is None
        assert hand.allowed_m == 0.0
        clear = HALF_M + FINGER_THICKNESS
        assert hand.box.centre[1] >= hand.at[1] + clear - 1e-6


@pytest.mark.parametrize("offset", [0.016, 0.02, 0.027, 0.035])
@pytest.mark.parametrize("side", [-1, 1])
def test_a_finger_that_comes_down_on_a_box_pushes_it_away(side, offset):
    hand = Hand(cube(), at=(0.2, side * offset, 0.08)).move(0.2, side * offset, GRASP_M)
    assert abs(hand.box.centre[1] - hand.at[1]) >= OPEN_M + FINGER_THICKNESS + HALF_M - 1e-6
    hand.close()
    assert hand.scene.held is None
    assert hand.allowed_m == 0.0
    hand.move(0.2, side * offset, 0.1)
    assert hand.box.centre[2] == HALF_M


def test_shut_fingers_that_come_down_in_the_middle_push_it_away():
    hand = Hand(cube(), at=(0.2, 0.0, 0.08), half_gap_m=0.0).move(0.2, 0.0, GRASP_M)
    assert hand.scene.held is None
    assert abs(hand.box.centre[1]) >= HALF_M + FINGER_THICKNESS - 1e-6


@pytest.mark.parametrize("y", [-0.008, 0.0, 0.008])
@pytest.mark.parametrize("yaw", [0.0, 0.3, -0.3, 0.3 + np.pi / 2, np.pi])
def test_closing_around_a_box_holds_it(y, yaw):
    hand = Hand(cube(y=y, yaw=yaw), at=(0.2, 0.0, 0.08)).move(0.2, 0.0, GRASP_M)
    assert hand.scene.held is None
    while hand.scene.held is None and hand.half_gap_m > 0:
        hand.half_gap_m -= 0.001
        hand.half_gap_m = hand.step()
    assert hand.scene.held == "cube"
    assert hand.allowed_m == pytest.approx(HALF_M, abs=1e-3)  # its width, along its faces
    assert grip_angle_rad(2 * hand.allowed_m) == pytest.approx(arm.gripper_rad(HALF_M), abs=0.03)
    hand.half_gap_m = 0.0
    assert hand.step() == pytest.approx(HALF_M, abs=1e-9)
    assert hand.scene.held == "cube"
    assert hand.box.centre[1] == pytest.approx(0.0, abs=1e-9)


def test_lifting_carries_and_opening_drops():
    hand = Hand(cube(), at=(0.2, 0.0, 0.08)).move(0.2, 0.0, GRASP_M).close()
    hand.half_gap_m = 0.0
    hand.move(0.2, 0.0, 0.1).move(0.15, 0.05, 0.1)
    assert hand.box.centre == pytest.approx((0.15, 0.05, 0.1 + HALF_M - GRASP_M))
    hand.half_gap_m = HALF_M
    hand.open()
    assert hand.scene.held is None
    heights = []
    for _ in range(40):
        hand.step()
        heights.append(hand.box.centre[2])
    assert heights == sorted(heights, reverse=True)
    assert hand.box.centre == pytest.approx((0.15, 0.05, HALF_M))


@pytest.mark.parametrize(
    ("at", "where"),
    [
        ((0.2, 0.07, GRASP_M), "beside"),
        ((0.17, 0.0, GRASP_M), "in front"),
        ((0.23, 0.0, GRASP_M), "behind"),
        ((0.2, 0.0, 0.05), "above"),
    ],
)
def test_closing_elsewhere_holds_nothing(at, where):
    hand = Hand(cube(), at=(at[0], at[1], 0.09)).move(*at).close()
    assert hand.scene.held is None, where
    assert hand.allowed_m == 0.0, where
    hand.move(at[0], at[1], 0.12)
    assert hand.box.centre[2] == HALF_M


@pytest.mark.parametrize("yaw", [0.65, np.pi / 4, -0.7])
def test_a_box_that_stands_askew_blocks_the_fingers_and_is_not_held(yaw):
    hand = Hand(cube(yaw=yaw), at=(0.2, 0.0, 0.08)).move(0.2, 0.0, GRASP_M).close()
    assert hand.scene.held is None
    assert hand.allowed_m > HALF_M + 0.003
    hand.half_gap_m = 0.0
    hand.move(0.2, 0.0, 0.1)
    assert hand.box.centre[2] == HALF_M


def test_a_box_is_not_held_by_fingers_that_close_up_and_down():
    rolled = arm.rotation_y(0.0) @ np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])  # the hand lies on its side
    scene = Scene(SceneSpec((cube(),)))
    for half_gap in np.arange(0.04, 0.0, -0.001):
        scene.step((rolled, np.array([0.2 - 0.08, 0.0, 0.03])), float(half_gap), DT_S)
        assert scene.held is None


def test_what_is_held_is_held_while_another_box_is_pushed():
    hand = Hand(cube(), cube(x=0.2, y=0.09, name="other"), at=(0.2, 0.0, 0.08)).move(0.2, 0.0, GRASP_M).close()
    hand.half_gap_m = 0.0
    hand.move(0.2, 0.0, 0.02).move(0.2, 0.1, 0.02)
    assert hand.scene.held == "cube"
    assert hand.box.centre[1] == pytest.approx(0.1)
    assert hand.scene.box("other").centre[1] > 0.1 + HALF_M + FINGER_THICKNESS


def test_a_box_is_found_by_its_name():
    scene = Scene(SceneSpec((cube(),)))
    assert scene.box("cube") is scene.boxes[0]
    with pytest.raises(KeyError):
        scene.box("ball")


def test_lowest_point_is_that_of_a_fingertip():
    pose = arm.forward(np.array([0.0, 0.2, 0.8, 0.5, 0.0, 0.4]))
    assert lowest_point_m(pose, *pose.links[-1]) < pose.tool[2]


_GOAL = st.tuples(
    st.floats(0.14, 0.26), st.floats(-0.07, 0.07), st.floats(0.008, 0.09),  # where
    st.floats(-1.2, 1.2), st.floats(0.7, 1.7), st.floats(-1.5, 1.5), st.floats(0.0, 0.036),  # yaw, pitch, roll, gap
)  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(st.lists(_GOAL, min_size=2, max_size=6), st.floats(-3.2, 3.2))
def test_a_box_never_sinks_jumps_or_gets_lost(goals, yaw):
    scene = Scene(SceneSpec((cube(yaw=yaw),)))
    now = np.array(goals[0])
    for goal in goals[1:]:
        speed = np.array([0.004, 0.004, 0.004, 0.02, 0.02, 0.02, 0.001])
        for _ in range(int(np.ceil((np.abs(np.array(goal) - now) / speed).max()))):
            now = now + np.clip(np.array(goal) - now, -speed, speed)
            x, y, z, turn, pitch, roll, half_gap = now
            c, s = np.cos(roll), np.sin(roll)
            about_x = np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
            rotation = arm.rotation_z(turn) @ arm.rotation_y(pitch) @ about_x
            before = np.array(scene.boxes[0].centre)
            allowed = scene.step((rotation, np.array([x, y, z]) - rotation[:, 0] * arm.TOOL_X), half_gap, DT_S)
            now[6] = allowed
            box = scene.boxes[0]
            assert np.isfinite([*box.centre, box.yaw_rad, allowed]).all()
            assert box.centre[2] >= HALF_M
            assert np.linalg.norm(np.array(box.centre) - before) < 0.07
            assert box.size == (EDGE_M,) * 3
            assert allowed >= half_gap
