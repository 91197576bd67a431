"""The leader that follows waypoints."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hal.profile import minimum_jerk
from hal.teleop.scripted import Waypoint, WaypointLeader
from hal.types import Observation

A, B = np.array([1.0, -1.0]), np.array([1.0, 2.0])
SEEN = Observation(10.0, np.array([0.5, 0.0]), np.zeros(2), 10.0)


def leader(*waypoints: Waypoint, with_base: bool = False) -> WaypointLeader:
    made = WaypointLeader(lambda _: waypoints, with_base=with_base)
    made.start(SEEN, 10.0)
    return made


def test_before_the_start_it_says_nothing():
    idle = WaypointLeader(lambda _: [Waypoint(A, 1.0)], with_base=False)
    assert idle.read(0.0) is None
    assert not idle.finished
    idle.close()


def test_it_passes_every_waypoint_on_time_from_where_the_robot_is():
    moving = leader(Waypoint(A, 1.0), Waypoint(B, 0.5), Waypoint(B, 0.25))
    for time_s, where in ((9.0, SEEN.qpos), (10.0, SEEN.qpos), (11.0, A), (11.5, B), (11.75, B), (99.0, B)):
        sample = moving.read(time_s)
        assert sample.qpos == pytest.approx(where)
        assert sample.stamp_s == time_s
    assert moving.read(10.5).qpos == pytest.approx((SEEN.qpos + A) / 2)


def test_it_is_finished_when_the_last_waypoint_is_due():
    moving = leader(Waypoint(A, 1.0), Waypoint(B, 0.5))
    moving.read(11.49)
    assert not moving.finished
    moving.read(11.5)
    assert moving.finished
    moving.start(SEEN, 20.0)
    assert not moving.finished
    assert moving.read(20.0).qpos == pytest.approx(SEEN.qpos)


def test_the_plan_is_made_from_the_joints_at_the_start():
    told = []
    planned = WaypointLeader(lambda qpos: told.append(qpos) or [Waypoint(qpos + 1, 1.0)], with_base=False)
    planned.start(SEEN, 0.0)
    assert (told[0] == SEEN.qpos).all()
    assert planned.read(1.0).qpos == pytest.approx(SEEN.qpos + 1)


def test_the_base_is_at_rest_or_left_out():
    assert leader(Waypoint(A, 1.0)).read(10.0).base_velocity is None
    assert leader(Waypoint(A, 1.0), with_base=True).read(10.0).base_velocity.tolist() == [0.0, 0.0]


def test_samples_are_not_the_plans_own_arrays():
    moving = leader(Waypoint(A.copy(), 1.0))
    moving.read(11.0).qpos[:] = 7.0
    assert moving.read(11.0).qpos == pytest.approx(A)


@pytest.mark.parametrize("duration_s", [0.0, -1.0, float("nan"), float("inf")])
def test_a_waypoint_takes_time(duration_s):
    """Found in review: a last waypoint of 0 s gave NaN positions."""
    with pytest.raises(ValueError, match="expected more than 0"):
        Waypoint(A, duration_s)


def test_an_empty_plan_is_refused():
    with pytest.raises(ValueError, match="at least one waypoint"):
        leader()


@given(st.lists(st.floats(0.01, 3.0), min_size=1, max_size=5), st.lists(st.floats(0, 20), min_size=1, max_size=20))
def test_positions_stay_between_waypoints_and_are_finite(durations, times):
    moving = leader(*(Waypoint(A if i % 2 else B, d) for i, d in enumerate(durations)))
    corners = np.stack([SEEN.qpos, A, B])
    for time_s in times:
        qpos = moving.read(10.0 + time_s).qpos
        assert (qpos >= corners.min(axis=0) - 1e-9).all()
        assert (qpos <= corners.max(axis=0) + 1e-9).all()


def test_minimum_jerk_begins_and_ends_at_rest():
    assert [minimum_jerk(share) for share in (0.0, 0.5, 1.0)] == pytest.approx([0.0, 0.5, 1.0])
    for end in (0.0, 1.0):
        inside = abs(end - 1e-4)
        assert abs(minimum_jerk(inside) - minimum_jerk(end)) / 1e-4 < 1e-6
    assert (np.diff([minimum_jerk(s) for s in np.linspace(0, 1, 101)]) > 0).all()
