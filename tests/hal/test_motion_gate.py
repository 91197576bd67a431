"""The gate: what gets through, how, and what stops it. All on virtual time."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hal.clock import MonotonicClock
from hal.motion import GateConfig, MotionGate, Resource
from hal.types import ActionDim, ActionKind, ActionSpec, Command, SpecError

GO = [1.0, 0.1, 0.0, 0.3, 0.0, 0.5, 0.0]
REST = [0.2, 0.1, 0.0, 0.0, 0.0, 0.0, 0.0]
PERIOD_S = 0.005
VELOCITY = ActionSpec(
    dims=(ActionDim(name="turn", kind=ActionKind.JOINT_VELOCITY, unit="rad/s", target="shoulder"),)
)  # fmt: skip


def speeds(bench) -> np.ndarray:
    return np.diff(np.array([s.qpos for s in bench.robot.written]), axis=0) / PERIOD_S


# Start


def test_first_setpoint_is_what_was_measured_even_with_a_target_waiting(bench):
    bench.submit(bench.lease(), GO)
    bench.sleep(0.1)
    assert bench.robot.written[0].qpos.tolist() == [0.2, 0.1, 0.0]
    assert bench.robot.written[0].base_velocity.tolist() == [0.0, 0.0]
    bench.assert_lawful()


def test_nothing_is_written_before_a_fresh_and_complete_observation(bench):
    bench.robot.freeze("joints")
    bench.robot.frozen["joints"] = float("-inf")
    bench.sleep(0.2)
    assert bench.robot.written == []
    assert bench.gate.setpoint is None
    assert bench.gate.report().holding == "no fresh joint positions yet"
    bench.robot.frozen.clear()
    bench.robot.qpos[1] = np.nan
    bench.sleep(0.2)
    assert bench.robot.written == []
    bench.robot.qpos[1] = 0.15
    bench.sleep(0.01)
    assert bench.robot.written[0].qpos.tolist() == [0.2, 0.15, 0.0]
    assert bench.gate.report().holding is None


def test_a_joint_found_a_little_outside_may_only_come_back(make_bench):
    bench = make_bench(qpos=(2.1, 0.1, 0.0))
    lease = bench.lease()
    bench.stream(lease, [3.0, 0.1, 0, 0, 0, 0, 0], 0.2)
    bench.stream(lease, [1.9, 0.1, 0, 0, 0, 0, 0], 0.6)
    positions = [setpoint.qpos[0] for setpoint in bench.robot.written]
    assert positions[0] == 2.1
    assert max(positions) == 2.1
    assert positions[-1] == pytest.approx(1.9)


def test_a_joint_that_reads_nonsense_is_a_fault_and_nothing_is_written(make_bench):
    bench = make_bench(qpos=(10.0, 0.1, 0.0))
    lease = bench.lease()
    bench.stream(lease, GO, 0.2)
    assert bench.robot.written == []
    assert "shoulder reads 10" in bench.gate.fault(lease)


def test_an_observation_of_the_wrong_width_is_a_fault(bench):
    bench.robot.qpos = np.zeros(5)
    lease = bench.lease()
    bench.sleep(0.05)
    assert "joint positions (5,), its spec says (3,)" in bench.gate.fault(lease)


# Moving


def test_target_is_reached_one_command_period_later(bench):
    bench.sleep(0.01)
    lease = bench.lease()
    bench.stream(lease, lambda t: [0.2 + 0.2 * t, 0.1, 0, 0, 0, 0, 0], 1.0)
    bench.submit(lease, [0.4, 0.1, 0, 0, 0, 0, 0])
    # One command period, and the time that braking from 0.2 rad/s at 10 rad/s2 takes off.
    lag_s = 0.040 + 0.2 / 20
    assert bench.last.qpos[0] == pytest.approx(0.4 - 0.2 * lag_s, abs=1e-4)
    steady = speeds(bench)[-100:, 0]
    assert steady == pytest.approx(np.full(100, 0.2), abs=1e-3)


def test_a_far_target_is_reached_within_limits_and_not_overshot(bench):
    lease = bench.lease()
    bench.stream(lease, [1.9, 0.3, 0.85, 0, 0, 0, 0], 3.0)
    positions = np.array([setpoint.qpos for setpoint in bench.robot.written])
    assert positions[-1] == pytest.approx([1.9, 0.3, 0.85])
    assert (np.diff(positions, axis=0) >= -1e-12).all()
    assert positions[:, 0].max() <= 1.9 + 1e-12
    assert speeds(bench)[:, 0].max() == pytest.approx(2.0)
    bench.assert_lawful()


def test_joints_not_named_keep_their_setpoint(bench):
    lease = bench.lease()
    only = ActionSpec(dims=bench.action_spec.dims[:1])
    bench.stream(lease, [0.9], 2.0, only)
    assert bench.last.qpos.tolist() == pytest.approx([0.9, 0.1, 0.0])


def test_gripper_fraction_and_progress_pass_the_gate(bench):
    dims = (
        ActionDim(name="grip", kind=ActionKind.GRIPPER, unit="1", target="hand"),
        ActionDim(name="progress", kind=ActionKind.PROGRESS, unit="1"),
    )
    sent = bench.stream(bench.lease(Resource.ARM), [1.0, 7.5], 1.0, ActionSpec(dims=dims))[-1].sent
    assert sent.tolist() == pytest.approx([1.0, 7.5])
    assert bench.last.qpos[2] == pytest.approx(0.85)


def test_joint_velocity_is_integrated_up_to_the_limit(bench):
    lease = bench.lease()
    bench.stream(lease, [0.5], 1.0, VELOCITY)
    assert speeds(bench)[-1, 0] == pytest.approx(0.5)
    assert bench.submit(lease, [9.0], VELOCITY).sent.tolist() == [2.0]
    bench.sleep(0.04)
    bench.stream(lease, [2.0], 2.0, VELOCITY)
    assert bench.last.qpos[0] == pytest.approx(2.0)
    assert bench.counts == {"speed": 1}
    bench.stream(lease, [-9.0], 0.6, VELOCITY)
    assert "turn was asked -9, limits -2 to 2" in bench.gate.fault(lease)
    bench.assert_lawful()


def test_joint_velocity_becomes_zero_when_commands_cease(bench):
    lease = bench.lease()
    bench.stream(lease, [-0.5], 0.4, VELOCITY)
    bench.sleep(0.3)
    assert speeds(bench)[-1, 0] == 0
    assert bench.counts == {"watchdog": 1}


def test_base_ramps_up_and_reverses_within_its_acceleration(bench):
    lease = bench.lease()
    bench.stream(lease, [0.2, 0.1, 0, 0.4, -2.0, 0, 0], 0.6)
    assert bench.last.base_velocity.tolist() == pytest.approx([0.4, -2.0])
    bench.stream(lease, [0.2, 0.1, 0, -0.4, 2.0, 0, 0], 1.0)
    assert bench.last.base_velocity.tolist() == pytest.approx([-0.4, 2.0])
    bench.assert_lawful()


# Refusing


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", range(7))
def test_what_is_not_finite_is_refused_whole_and_is_a_fault(bench, bad, where):
    lease = bench.lease()
    bench.stream(lease, GO, 0.2)
    action = list(GO)
    action[where] = bad
    result = bench.submit(lease, action)
    assert (result.accepted, result.reasons) == (False, ("non_finite",))
    assert np.isfinite(result.sent[:5]).all()
    bench.sleep(PERIOD_S)
    assert bench.last.base_velocity.tolist() == [0.0, 0.0]
    assert bench.gate.fault(lease).endswith(
        f"not finite ({bench.action_spec.names[where]}). Activate another run, or train it again."
    )
    assert bench.submit(lease, GO).reasons == ("fault",)
    bench.sleep(1.0)
    assert not speeds(bench)[-1].any()
    bench.gate.release(lease)
    again = bench.lease()
    assert bench.submit(again, REST).accepted
    assert bench.gate.fault(again) is None
    bench.assert_lawful()


def test_ten_radians_and_ten_metres_per_second_never_pass(bench):
    lease = bench.lease()
    result = bench.submit(lease, [10, -10, 10, 10, -10, 0, 0])
    assert result.accepted
    assert result.reasons == ("position", "base")
    assert result.sent.tolist() == [2.0, 0.0, 0.85, 0.4, -2.0, 0, 0]
    bench.sleep(0.04)
    bench.stream(lease, [-10, 10, -10, -10, 10, 0, 0], 2.0)
    bench.assert_lawful()


def test_a_single_excess_is_counted_and_a_lasting_one_is_a_fault(bench):
    lease = bench.lease()
    far = [5.0, *REST[1:]]
    bench.submit(lease, far)
    bench.sleep(0.04)
    bench.stream(lease, [2.0, *REST[1:]], 2.0)
    assert bench.counts == {"position": 1}
    assert bench.gate.fault(lease) is None
    bench.stream(lease, far, 0.52)
    assert bench.gate.fault(lease) is None
    bench.submit(lease, far)
    assert "beyond the position limits for 0.52 s: shoulder was asked 5" in bench.gate.fault(lease)
    assert bench.gate.fault(lease).endswith(". Check that the skill was made for this robot, or lower execution.speed.")


def test_a_lasting_small_excess_is_counted_only(bench):
    lease = bench.lease()
    bench.stream(lease, [2.02, *REST[1:]], 2.0)
    assert bench.counts["position"] == 50
    assert bench.gate.fault(lease) is None


def test_targets_that_jump_are_counted_and_limited(bench):
    lease = bench.lease()
    bench.stream(lease, lambda t: [0.2 + 1.9 * t, *REST[1:]], 0.6)
    assert bench.counts == {}
    assert bench.submit(lease, [0.2, *REST[1:]]).reasons == ("speed",)
    bench.sleep(0.04)
    bench.stream(lease, lambda t: [1.0 if round(t / 0.04) % 2 else -0.5, *REST[1:]], 0.8)
    assert "speed limits for" in bench.gate.fault(lease)
    bench.assert_lawful()


def test_an_old_command_is_refused(bench):
    bench.sleep(1.0)
    lease = bench.lease()
    for stamp_s in (0.7, float("nan")):
        result = bench.gate.submit(lease, Command(bench.action_spec, np.array(GO), stamp_s))
        assert (result.accepted, result.reasons) == (False, ("late",))
    future = bench.gate.submit(lease, Command(bench.action_spec, np.array(GO), 99.0))
    assert future.accepted
    bench.sleep(0.3)
    assert bench.counts == {"late": 2, "watchdog": 1}


def test_an_action_that_does_not_fit_is_an_error_at_once(bench):
    lease = bench.lease()
    elbow = ActionSpec(dims=(ActionDim(name="e", kind=ActionKind.JOINT_POSITION, unit="rad", target="elbow"),))
    with pytest.raises(SpecError, match="elbow"):
        bench.submit(lease, [0.0], elbow)
    with pytest.raises(SpecError, match="elbow"):
        bench.gate.check(elbow)
    with pytest.raises(SpecError, match=r"\(3,\), its spec says \(7,\)"):
        bench.submit(lease, [0.0, 0.0, 0.0])


def test_bindings_do_not_pile_up(bench):
    lease = bench.lease()
    for _ in range(100):
        assert bench.submit(lease, REST, bench.action_spec.model_copy()).accepted
    assert len(bench.gate._bindings) == 16


# Stopping


def test_stop_works_from_the_next_step_on(bench):
    lease = bench.lease()
    bench.stream(lease, GO, 0.2)
    before = speeds(bench)[-1]
    moved = bench.clock.now()
    bench.gate.stop("operator")
    bench.gate.stop("second")
    assert bench.gate.stopped == "operator"
    refused = bench.submit(lease, GO)
    assert (refused.accepted, refused.reasons) == (False, ("stopped",))
    bench.sleep(PERIOD_S)
    assert bench.last.stamp_s - moved == pytest.approx(PERIOD_S)
    assert bench.last.base_velocity.tolist() == [0.0, 0.0]
    limit = bench.spec.acceleration_limits * PERIOD_S
    assert np.abs(speeds(bench)[-1]) == pytest.approx(np.maximum(np.abs(before) - limit, 0))
    bench.stream(lease, GO, 1.0)
    stopping = np.abs(speeds(bench)[-200:])
    assert (np.diff(stopping, axis=0) <= 1e-9).all()
    assert not stopping[-1].any()
    assert all(not s.base_velocity.any() for s in bench.robot.written[-200:])
    assert bench.gate.report().holding == "stopped: operator"
    assert bench.gate.fault(lease) is None
    bench.assert_lawful()


def test_nothing_resumes_by_itself_after_a_stop(bench):
    lease = bench.lease()
    bench.stream(lease, GO, 0.2)
    bench.gate.stop("operator")
    bench.gate.clear_stop()
    assert bench.gate.stopped is None
    bench.sleep(1.0)
    rest = bench.last
    assert rest.qpos[0] < 0.9
    assert not speeds(bench)[-1].any()
    assert not rest.base_velocity.any()
    bench.stream(lease, GO, 2.0)
    assert bench.last.qpos[0] == pytest.approx(1.0)
    bench.assert_lawful()


def test_a_gripper_that_squeezes_does_not_let_go_at_a_stop(bench):
    lease = bench.lease()
    bench.stream(lease, [0.2, 0.1, -0.3, 0, 0, 0, 0], 0.6)
    bench.robot.follows = False
    bench.robot.qpos[2] = 0.5
    bench.stream(lease, [0.2, 0.1, -0.3, 0, 0, 0, 0], 1.0)
    assert bench.gate.fault(lease) is None
    bench.gate.stop("operator")
    bench.sleep(1.0)
    assert bench.last.qpos[2] == pytest.approx(-0.3)


def test_a_stop_that_comes_while_another_is_cleared_is_not_lost(bench, monkeypatch):
    bench.gate.stop("first")
    rest = bench.gate._rest

    def stop_meanwhile(resources):
        rest(resources)
        bench.gate.stop("second")

    with monkeypatch.context() as patch:
        patch.setattr(bench.gate, "_rest", stop_meanwhile)
        bench.gate.clear_stop()
    assert bench.gate.stopped == "second"
    bench.gate.clear_stop()
    assert bench.gate.stopped is None


def test_stop_takes_no_lock(bench):
    with bench.gate._lock:
        bench.gate.stop("from a signal handler")
        assert bench.gate.stopped == "from a signal handler"


def test_hold_keeps_the_lease_without_a_watchdog(bench):
    lease = bench.lease()
    bench.stream(lease, GO, 0.2)
    bench.gate.hold(lease)
    bench.sleep(PERIOD_S)
    assert bench.last.base_velocity.tolist() == [0.0, 0.0]
    bench.sleep(3.0)
    assert bench.counts == {}
    assert bench.gate.fault(lease) is None
    assert bench.gate.holds(lease, Resource.ARM)
    assert bench.gate.report().holding is None
    assert bench.submit(lease, GO).accepted
    bench.assert_lawful()


# Losing things


def test_watchdog_rests_at_200_ms_and_faults_when_it_lasts(bench):
    lease = bench.lease()
    bench.stream(lease, [1.9, *GO[1:]], 0.4)
    bench.sleep(0.160 - PERIOD_S)
    assert bench.last.base_velocity[0] == pytest.approx(0.3)
    bench.sleep(PERIOD_S)
    assert bench.last.base_velocity.tolist() == [0.0, 0.0]
    assert bench.counts == {"watchdog": 1}
    assert bench.gate.report().holding == "commands have ceased"
    assert bench.gate.fault(lease) is None
    bench.sleep(0.5)
    assert bench.gate.fault(lease) == (
        "No command came from test for 0.70 s (limit 0.20 s). "
        "The machine may be overloaded: stop other programs and run again."
    )
    assert not speeds(bench)[-1].any()
    bench.assert_lawful()


def test_commands_that_come_back_in_time_go_on(bench):
    lease = bench.lease()
    bench.stream(lease, GO, 0.2)
    bench.sleep(0.3)
    bench.stream(lease, GO, 1.0)
    assert bench.gate.fault(lease) is None
    assert bench.last.qpos[0] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("sensor", "hold_s", "fail_s"), [("front", 4 / 15, 12 / 15), ("wrist", 0.15, 0.5), ("joints", 0.15, 0.5)]
)
def test_a_frozen_sensor_holds_and_then_fails(bench, sensor, hold_s, fail_s):
    lease = bench.lease(sensors=("front", "wrist"))
    bench.stream(lease, GO, 0.4)
    bench.robot.freeze(sensor)
    frozen_s = bench.clock.now()
    results = bench.stream(lease, [1.5, *GO[1:]], 1.0)
    after = [s for s in bench.robot.written if s.stamp_s > frozen_s]
    first = next(s.stamp_s for s in after if not s.base_velocity.any())
    assert hold_s < first - frozen_s <= hold_s + PERIOD_S + 1e-9
    assert all(not s.base_velocity.any() for s in after if s.stamp_s >= first)
    assert bench.counts["stale"] == 1
    held = next(r for r in results if "stale" in r.reasons)
    assert held.accepted
    assert held.sent[3] == 0
    assert f"Sensor {sensor} is" in bench.gate.fault(lease)
    assert f"limit {fail_s:.2f} s). Check its connection and its driver, then run again." in bench.gate.fault(lease)
    faulted = [r for r in results if r.reasons == ("fault",)]
    assert len(faulted) == pytest.approx((1.0 - fail_s) / 0.04, abs=1.5)
    bench.assert_lawful()


def test_a_sensor_that_comes_back_lets_the_motion_go_on(bench):
    lease = bench.lease(sensors=("wrist",))
    bench.stream(lease, GO, 0.2)
    bench.robot.freeze("wrist")
    bench.stream(lease, GO, 0.32)
    assert "Sensor wrist" in bench.gate.report().holding
    bench.robot.frozen.clear()
    bench.stream(lease, GO, 2.0)
    assert bench.gate.fault(lease) is None
    assert bench.last.qpos[0] == pytest.approx(1.0)
    bench.assert_lawful()


def test_a_sensor_nobody_depends_on_may_freeze(bench):
    lease = bench.lease(sensors=("wrist",))
    bench.robot.freeze("front")
    bench.stream(lease, GO, 2.0)
    assert bench.gate.fault(lease) is None
    assert bench.counts == {}


def test_a_camera_that_never_delivered_holds_at_once_and_fails_after_its_limit(bench):
    bench.robot.frozen["wrist"] = float("-inf")
    bench.sleep(2.0)
    lease = bench.lease(sensors=("wrist",))
    bench.stream(lease, GO, 0.48)
    assert bench.gate.fault(lease) is None
    assert all(not s.base_velocity.any() for s in bench.robot.written)
    bench.stream(lease, GO, 0.08)
    assert bench.gate.fault(lease) == (
        "Sensor wrist has not delivered yet (limit 0.50 s). Check its connection and its driver, then run again."
    )


def test_a_stamp_from_the_future_is_not_fresh(bench):
    lease = bench.lease(sensors=("wrist",))
    bench.robot.frozen["wrist"] = 1e6
    bench.stream(lease, GO, 0.2)
    assert all(not s.base_velocity.any() for s in bench.robot.written)


def test_joints_that_read_nan_are_stale(bench):
    lease = bench.lease()
    bench.stream(lease, GO, 0.2)
    bench.robot.follows = False
    bench.robot.qpos = np.array([np.nan, 0.1, 0.0])
    bench.stream(lease, GO, 1.0)
    fault = bench.gate.fault(lease)
    assert fault.startswith("Sensor joints has read no numbers (NaN) for 0.5")
    assert fault.endswith("(limit 0.50 s). Check the arm's bus, then run again.")
    bench.assert_lawful()


def test_joints_that_never_read_numbers(bench):
    bench.robot.follows = False
    bench.robot.qpos = np.array([np.nan, 0.1, 0.0])
    lease = bench.lease()
    bench.stream(lease, GO, 1.0)
    assert bench.gate.fault(lease).startswith("Sensor joints has read no numbers (NaN) yet (limit 0.50 s).")


def test_a_robot_that_does_not_answer(bench, silent):
    lease = bench.lease()
    bench.stream(lease, GO, 0.2)
    bench.robot.read_error = silent
    bench.sleep(PERIOD_S)
    assert bench.last.base_velocity.tolist() == [0.0, 0.0]
    assert bench.gate.fault(lease) == (
        "The robot bench does not answer: no answer on the bus. Check its power and its connection."
    )
    written = len(bench.robot.written)
    bench.sleep(1.0)
    assert len(bench.robot.written) == written + 200
    assert not speeds(bench)[-1].any()
    assert bench.counts["read"] == 201
    bench.robot.read_error = ZeroDivisionError("a bug in a driver")
    bench.sleep(0.1)
    assert len(bench.robot.written) == written + 220
    bench.assert_lawful()


def test_a_robot_that_takes_no_setpoints_goes_on_from_the_last_it_got(bench, silent):
    lease = bench.lease()
    bench.stream(lease, GO, 0.2)
    last = bench.last.qpos
    bench.robot.write_error = silent
    bench.stream(lease, GO, 0.4)
    assert bench.gate.fault(lease) == (
        "The robot bench does not take setpoints: no answer on the bus. Check its power and its connection."
    )
    assert bench.counts["write"] == 80
    bench.robot.write_error = None
    bench.sleep(0.5)
    assert bench.last.qpos.tolist() == last.tolist()
    assert bench.last.base_velocity.tolist() == [0.0, 0.0]


def test_the_first_setpoint_is_measured_anew_when_the_first_write_fails(bench, silent):
    bench.robot.write_error = silent
    bench.sleep(0.1)
    bench.robot.qpos[0] = 0.7
    bench.robot.write_error = None
    bench.sleep(0.1)
    assert bench.robot.written[0].qpos[0] == 0.7


def test_an_arm_that_does_not_follow_is_a_fault(bench):
    lease = bench.lease()
    bench.sleep(0.1)
    bench.robot.follows = False
    bench.stream(lease, [1.8, *REST[1:]], 0.8)
    assert bench.gate.fault(lease) is None
    bench.stream(lease, [1.8, *REST[1:]], 0.4)
    assert "joint shoulder stays" in bench.gate.fault(lease)
    assert bench.counts["tracking"] == 1


# Reports


def test_report(bench):
    lease = bench.lease()
    bench.stream(lease, [5.0, *REST[1:]], 0.2)
    report = bench.gate.report()
    assert report.counts == {"position": 5}
    assert report.steps == 41
    assert report.setpoint is bench.last
    assert report.asked.action[0] == 5.0
    assert bench.gate.setpoint is bench.last
    with pytest.raises(ValueError, match="read-only"):
        bench.last.qpos[0] = 3
    bench.gate.reset_counts()
    assert bench.gate.report().counts == {}
    assert report.counts == {"position": 5}


@pytest.mark.parametrize("bad", [-1.0, float("nan"), float("inf")])
def test_config_must_make_sense(bad):
    with pytest.raises(ValueError, match=r"watchdog_s must be"):
        GateConfig(watchdog_s=bad)


# For any sequence of events


number = st.one_of(
    st.floats(-3, 3),
    st.floats(allow_nan=True, allow_infinity=True),
    st.sampled_from([0.0, 10.0, -10.0, 1e308, -1e308, 5e-324]),
)
sane = st.floats(-3, 3)
event = st.one_of(
    st.tuples(st.just("submit"), st.lists(number, min_size=7, max_size=7)),
    st.tuples(st.just("submit"), st.lists(sane, min_size=7, max_size=7)),
    st.tuples(st.just("spin"), sane),
    st.tuples(st.just("sleep"), st.floats(0, 0.1)),
    st.tuples(st.sampled_from(["acquire", "release", "hold", "stop", "clear", "freeze", "thaw", "mute", "unmute"])),
)


def apply(bench, lease, happened):
    what, *given_ = happened
    if what == "submit":
        bench.submit(lease, given_[0])
    elif what == "spin":
        bench.submit(lease, [given_[0]], VELOCITY)
    elif what == "acquire":
        return bench.lease()
    elif what == "release":
        bench.gate.release(lease)
    elif what == "hold":
        bench.gate.hold(lease)
    elif what == "stop":
        bench.gate.stop("test")
    elif what == "clear":
        bench.gate.clear_stop()
    elif what in ("freeze", "thaw"):
        bench.robot.frozen = {"joints": bench.clock.now()} if what == "freeze" else {}
    elif what in ("mute", "unmute"):
        bench.robot.read_error = OSError("gone") if what == "mute" else None
    bench.sleep(given_[0] if what == "sleep" else 0.02)
    return lease


@settings(max_examples=150, deadline=None)
@given(
    events=st.lists(event, max_size=30), start=st.tuples(st.floats(-1, 2), st.floats(0, 0.3), st.floats(-0.35, 0.85))
)
def test_no_sequence_of_events_gets_an_unlawful_setpoint_through(make_bench_once, events, start):
    bench = make_bench_once(qpos=start)
    lease = bench.lease()
    for happened in events:
        lease = apply(bench, lease, happened)
    bench.gate.stop("end")
    before = len(bench.robot.written)
    bench.sleep(0.6)
    for setpoint in bench.robot.written[before:]:
        assert not setpoint.base_velocity.any()
    if len(bench.robot.written) > 2:
        stopping = np.abs(speeds(bench)[max(before - 2, 0) :])
        assert (np.diff(stopping, axis=0) <= 1e-9).all()
        assert not stopping[-1].any()
    bench.assert_lawful()


@settings(max_examples=60, deadline=None)
@given(targets=st.lists(st.lists(sane, min_size=7, max_size=7), min_size=5, max_size=25))
def test_good_commands_never_leave_the_limits(make_bench_once, targets):
    bench = make_bench_once(config=GateConfig(persist_s=1e6))
    lease = bench.lease()
    for target in targets:
        bench.submit(lease, target)
        bench.sleep(0.04)
    assert bench.gate.fault(lease) is None
    bench.assert_lawful()


# On the real clock


def test_on_its_own_thread_with_commands_and_a_stop_from_others(make_bench):
    template = make_bench()
    clock, arrived = MonotonicClock(), threading.Event()
    robot = type(template.robot)(clock, template.spec)
    original = robot.write

    def write(setpoint):
        original(setpoint)
        if setpoint.base_velocity.any():
            arrived.set()

    robot.write = write
    gate = MotionGate(robot, clock)
    gate.start()
    lease = gate.acquire("thread", [Resource.ARM, Resource.BASE])
    gate.submit(lease, Command(template.action_spec, np.array(GO), clock.now()))
    assert arrived.wait(5)
    threading.Thread(target=gate.stop, args=("other thread",)).start()
    gate.close()
    assert not robot.written[-1].base_velocity.any()
    assert gate.report().steps >= len(robot.written)
    template.robot.written = robot.written
    template.assert_lawful()


def test_a_bug_in_the_step_zeroes_the_base_and_is_told(bench, monkeypatch):
    lease = bench.lease()
    bench.stream(lease, GO, 0.2)
    assert bench.last.base_velocity.any()
    monkeypatch.setattr(bench.gate, "_judge", lambda *_: 1 / 0)
    bench.sleep(0.1)
    assert not bench.last.base_velocity.any()
    assert "motion gate itself failed: ZeroDivisionError" in bench.gate.fault(lease)


def test_a_driver_that_says_what_to_do_is_not_repeated(bench):
    lease = bench.lease()
    bench.stream(lease, GO, 0.2)
    bench.robot.read_error = OSError("gone. Check its power and its connection.")
    bench.sleep(PERIOD_S)
    assert bench.gate.fault(lease) == "The robot bench does not answer: gone. Check its power and its connection."
