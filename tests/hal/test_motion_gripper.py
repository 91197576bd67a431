"""Grippers that are commanded as a fraction and measured by nobody, through the whole gate."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hal.motion import GateConfig, Resource, bind_action
from hal.types import ActionDim, ActionKind, ActionSpec, GripperSpec, SpecError

PERIOD_S = 0.005
GRIPPERS = (GripperSpec(name="claw", max_rate_per_s=2.0), GripperSpec(name="suction", max_rate_per_s=1000.0))
CLAW = ActionSpec(dims=(ActionDim.fraction("claw"),))
BOTH = ActionSpec(dims=(ActionDim.fraction("suction"), ActionDim.fraction("claw")))
MIXED = ActionSpec(
    dims=(
        ActionDim(name="turn", kind=ActionKind.JOINT_VELOCITY, unit="rad/s", target="shoulder"),
        ActionDim(name="push", kind=ActionKind.JOINT_VELOCITY, unit="m/s", target="slide"),
        ActionDim.fraction("claw"),
    )
)


@pytest.fixture
def bench(make_bench):
    made = make_bench(grippers=GRIPPERS)
    made.sleep(0.05)
    return made


def claw(bench) -> np.ndarray:
    return np.array([setpoint.grippers[0] for setpoint in bench.robot.written])


def closing(bench):
    """An open claw that has been closing for 0.2 s: at 0.6. Returns the lease."""
    lease = bench.lease(Resource.ARM)
    bench.stream(lease, [1.0], 0.08, CLAW)
    bench.stream(lease, [0.0], 0.2, CLAW)
    assert bench.last.grippers[0] == pytest.approx(0.6)
    return lease


# What an action means


def test_an_arm_with_a_gripper_that_nobody_measures(bench):
    binding = bind_action(bench.action_spec, bench.spec)
    assert binding.dims.tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert np.flatnonzero(binding.is_gripper).tolist() == [3, 4]
    assert np.flatnonzero(binding.is_base).tolist() == [5, 6]
    assert binding.may_move(frozenset({Resource.ARM})).tolist() == [True] * 5 + [False] * 2
    assert binding.may_move(frozenset({Resource.BASE})).tolist() == [False] * 5 + [True] * 2
    action = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.2, -0.2, 0.6, 0.7])
    assert binding.action(binding.values(action), action).tolist() == action.tolist()


@pytest.mark.parametrize(
    ("unit", "target", "says"),
    [
        ("rad", "claw", "action x is a gripper in 'rad', expected '1': claw is not a joint"),
        ("1", "jaw", "moves joint or gripper 'jaw'; robot bench has shoulder, slide, hand, claw, suction"),
    ],
)
def test_a_gripper_that_does_not_fit_is_refused(bench, unit, target, says):
    dim = ActionDim(name="x", kind=ActionKind.GRIPPER, unit=unit, target=target)
    with pytest.raises(SpecError, match=says):
        bench.gate.check(ActionSpec(dims=(dim,)))


def test_only_a_gripper_dimension_moves_a_gripper(bench):
    dim = ActionDim(name="x", kind=ActionKind.JOINT_VELOCITY, unit="rad/s", target="claw")
    with pytest.raises(SpecError, match="moves joint 'claw'; robot bench has shoulder, slide, hand\\."):
        bench.gate.check(ActionSpec(dims=(dim,)))


def test_a_gripper_and_a_joint_at_the_same_place_are_two_things_and_a_gripper_twice_is_not(bench):
    bench.gate.check(ActionSpec(dims=(bench.action_spec.dims[0], ActionDim.fraction("claw"))))
    twice = ActionDim(name="again", kind=ActionKind.GRIPPER, unit="1", target="claw")
    with pytest.raises(SpecError, match="claw and again both move 'claw'"):
        bench.gate.check(ActionSpec(dims=(ActionDim.fraction("claw"), twice)))


@given(asked=st.lists(st.floats(-1e9, 1e9), min_size=2, max_size=2))
def test_any_fraction_is_cut_to_its_range_and_named(make_bench_once, asked):
    binding = bind_action(BOTH, make_bench_once(grippers=GRIPPERS).spec)
    values, violations = binding.clip(binding.values(np.array(asked)), GateConfig())
    assert values.tolist() == np.clip(asked, 0, 1).tolist()
    beyond = [abs(a - v) > 1e-3 for a, v in zip(asked, values, strict=True)]
    assert [v.reason for v in violations] == ["position"] * sum(beyond)
    _, _, fractions = binding.arm_targets(values)
    assert fractions.tolist() == values[::-1].tolist()


# Before anybody has commanded it


def test_a_fraction_is_unknown_until_the_first_command(bench):
    assert np.isnan(bench.last.grippers).all()
    lease = bench.lease()
    only_joints = bench.spec.action_spec(base=False, progress=False, grippers=False)
    bench.stream(lease, [0.4, 0.1, 0.0], 0.4, only_joints)
    assert np.isnan(bench.last.grippers).all()
    bench.stream(lease, [0.3], 0.04, CLAW)
    assert bench.last.grippers[0] == 0.3
    assert np.isnan(bench.last.grippers[1])
    bench.assert_lawful()


def test_the_first_fraction_is_sent_at_once_and_later_ones_at_the_rate(bench):
    lease = bench.lease(Resource.ARM)
    before = len(bench.robot.written)
    bench.submit(lease, [1.0], CLAW)
    bench.sleep(0.04)
    assert claw(bench)[before] == 1.0
    before = len(bench.robot.written)
    bench.stream(lease, [0.0], 0.6, CLAW)
    assert claw(bench)[before : before + 3] == pytest.approx([0.99, 0.98, 0.97])
    assert np.flatnonzero(claw(bench)[before:] == 0.0)[0] == 99  # 1 at 2 per second: the hundredth step
    bench.assert_lawful()


def test_a_slow_and_a_fast_gripper_go_each_at_its_own_rate(bench):
    lease = bench.lease(Resource.ARM)
    bench.stream(lease, [0.0, 0.0], 0.04, BOTH)
    bench.stream(lease, [1.0, 1.0], 0.2, BOTH)
    assert bench.last.grippers == pytest.approx([0.4, 1.0])
    bench.assert_lawful()


def test_what_holding_gives_is_the_last_fraction_sent_or_unknown(bench):
    lease = bench.lease(Resource.ARM)
    bench.gate.stop("operator")
    refused = bench.submit(lease, [1.0], CLAW)
    assert (refused.accepted, refused.reasons) == (False, ("stopped",))
    assert np.isnan(refused.sent).all()
    bench.gate.clear_stop()
    lease = closing(bench)
    bench.gate.stop("operator")
    refused = bench.submit(lease, [0.0], CLAW)
    assert refused.sent == pytest.approx([0.6])


def test_a_robot_without_such_grippers_is_told_of_none(make_bench):
    bench = make_bench()
    bench.sleep(0.05)
    assert bench.last.grippers is None


def test_setpoints_are_its_own_and_read_only(bench):
    closing(bench)
    kept = [setpoint.grippers for setpoint in bench.robot.written]
    assert len({id(fractions) for fractions in kept}) == len(kept)
    with pytest.raises(ValueError, match="read-only"):
        kept[-1][0] = 0.0


# A gripper must not open because the arm is stopped


def take_over(bench, lease):
    bench.lease(Resource.ARM, owner="other")


def break_step(bench, lease):
    def broken(*_):
        raise ZeroDivisionError

    bench.gate._judge = broken


@pytest.mark.parametrize(
    "rest",
    [
        lambda bench, lease: bench.gate.stop("operator"),
        lambda bench, lease: bench.gate.hold(lease),
        lambda bench, lease: bench.gate.release(lease),
        lambda bench, lease: bench.gate.close(),
        take_over,
        break_step,
    ],
    ids=["stop", "hold", "release", "close", "take over", "broken step"],
)
def test_whatever_stops_the_arm_leaves_the_fraction_where_it_is(bench, rest):
    lease = closing(bench)
    rest(bench, lease)
    before = len(bench.robot.written)
    bench.sleep(2.0)
    assert (claw(bench)[before:] == claw(bench)[before - 1]).all()
    assert claw(bench)[-1] == pytest.approx(0.6, abs=0.011)
    bench.assert_lawful()


def test_the_watchdog_leaves_the_fraction_where_it_is(bench):
    lease = closing(bench)
    bench.gate.hold(lease)
    bench.submit(lease, [1.0], CLAW)
    bench.sleep(1.0)
    stayed = bench.last.grippers[0]
    assert stayed == pytest.approx(0.6 + 2.0 * 0.2, abs=0.02)
    bench.stream(lease, [1.0], 0.04, CLAW)
    assert "No command came" in bench.gate.fault(lease)
    bench.sleep(1.0)
    assert bench.last.grippers[0] == stayed


def test_a_stale_sensor_holds_the_fraction_and_lets_it_go_on(bench):
    lease = closing(bench)
    bench.robot.freeze("joints")
    bench.stream(lease, [0.0], 0.28, CLAW)
    held = bench.submit(lease, [0.0], CLAW)
    assert held.reasons == ("stale",)
    assert held.sent == pytest.approx([bench.last.grippers[0]])
    assert bench.last.grippers[0] == pytest.approx(0.6 - 2.0 * 0.15, abs=0.02)
    bench.robot.frozen.clear()
    bench.stream(lease, [0.0], 0.4, CLAW)
    assert bench.last.grippers[0] == 0.0
    bench.assert_lawful()


def test_nothing_resumes_by_itself_after_a_stop_and_the_next_command_goes_on_from_there(bench):
    lease = closing(bench)
    bench.gate.stop("operator")
    bench.gate.clear_stop()
    bench.sleep(1.0)
    assert bench.last.grippers[0] == pytest.approx(0.6)
    bench.stream(lease, [0.0], 0.04, CLAW)
    assert bench.last.grippers[0] == pytest.approx(0.52)
    bench.assert_lawful()


def test_a_new_lease_on_the_arm_moves_it_on_from_where_it_is(bench):
    closing(bench)
    new = bench.lease(Resource.ARM, owner="other")
    bench.stream(new, [0.2, 0.1, 0.0], 0.4, bench.spec.action_spec(base=False, progress=False, grippers=False))
    assert bench.last.grippers[0] == pytest.approx(0.6)
    bench.stream(new, [1.0], 0.08, CLAW)
    assert bench.last.grippers[0] == pytest.approx(0.76)
    bench.assert_lawful()


def test_a_lease_on_the_base_moves_no_gripper(bench):
    arm = closing(bench)
    base = bench.lease(Resource.BASE)
    bench.gate.hold(arm)
    refused = bench.submit(base, [0.0], CLAW)
    assert refused.reasons == ("no_lease",)
    assert refused.sent == pytest.approx([0.6])
    bench.sleep(0.1)
    assert bench.last.grippers[0] == pytest.approx(0.6)


def test_after_a_failed_write_it_goes_on_from_what_the_robot_got(bench, silent):
    lease = closing(bench)
    bench.robot.write_error = silent
    bench.stream(lease, [0.0], 0.2, CLAW)
    bench.robot.write_error = None
    bench.sleep(0.2)
    assert bench.last.grippers[0] == pytest.approx(0.6)
    bench.assert_lawful()


# What is checked, and what cannot be


def test_a_fraction_has_no_speed_of_its_own_to_be_checked(bench):
    lease = bench.lease(Resource.ARM)
    bench.stream(lease, lambda t: [float(round(t / 0.04) % 2)], 2.0, CLAW)
    assert bench.gate.fault(lease) is None
    assert bench.counts == {}
    bench.assert_lawful()


def test_a_fraction_that_stays_beyond_its_range_is_a_fault_as_for_a_joint(bench):
    lease = bench.lease(Resource.ARM)
    sent = bench.stream(lease, [1.5], 0.6, CLAW)
    assert sent[0].sent.tolist() == [1.0]
    assert sent[0].reasons == ("position",)
    assert "claw was asked 1.5, limits 0 to 1" in bench.gate.fault(lease)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_fraction_that_is_not_finite_is_a_fault_at_once(bench, value):
    lease = closing(bench)
    refused = bench.submit(lease, [value], CLAW)
    assert (refused.accepted, refused.reasons) == (False, ("non_finite",))
    assert "not finite (claw)" in bench.gate.fault(lease)
    bench.sleep(0.5)
    assert bench.last.grippers[0] == pytest.approx(0.6)


def test_joint_velocities_with_a_gripper(bench):
    lease = bench.lease(Resource.ARM)
    sent = bench.stream(lease, [0.5, 0.05, 1.0], 1.0, MIXED)[-1]
    assert sent.sent.tolist() == [0.5, 0.05, 1.0]
    assert bench.last.qpos[0] == pytest.approx(0.7, abs=0.02)
    assert bench.last.qpos[1] == pytest.approx(0.15, abs=0.005)
    bench.stream(lease, [0.0, 0.0, 0.0], 0.2, MIXED)
    assert bench.last.grippers[0] == pytest.approx(0.6)
    bench.gate.stop("operator")
    assert bench.submit(lease, [0.5, 0.05, 0.0], MIXED).sent == pytest.approx([0.0, 0.0, 0.6])
    bench.sleep(0.5)
    assert bench.last.grippers[0] == pytest.approx(0.6)
    bench.assert_lawful()


@pytest.mark.parametrize(("asked", "sent"), [(1.2, 1.0), (-0.2, 0.0)])
def test_a_fraction_a_quarter_beyond_open_or_closed_is_cut_and_no_fault(bench, asked, sent):
    """A policy that learned from 0 and 1 predicts values on either side of them."""
    lease = bench.lease(Resource.ARM)
    bench.stream(lease, [asked], 2.0, CLAW)
    assert bench.gate.fault(lease) is None
    assert bench.last.grippers[0] == sent
    assert bench.counts["position"] == 50


@pytest.mark.parametrize("asked", [1.3, -0.3])
def test_a_fraction_further_beyond_is_a_fault_when_it_lasts(bench, asked):
    lease = bench.lease(Resource.ARM)
    bench.stream(lease, [asked], 0.4, CLAW)
    assert bench.gate.fault(lease) is None
    bench.stream(lease, [asked], 0.4, CLAW)
    assert f"claw was asked {asked}, limits 0 to 1" in bench.gate.fault(lease)


def test_a_joint_has_no_such_slack(bench):
    lease = bench.lease(Resource.ARM)
    only_joints = bench.spec.action_spec(base=False, progress=False, grippers=False)
    bench.stream(lease, [2.2, 0.1, 0.0], 1.0, only_joints)  # 7 % of its range beyond
    assert "shoulder was asked 2.2, limits -1 to 2" in bench.gate.fault(lease)


happening = st.one_of(
    st.tuples(st.just("submit"), st.lists(st.floats(-1, 2), min_size=2, max_size=2)),
    st.tuples(st.just("joints"), st.floats(-1, 2)),
    st.tuples(st.sampled_from(["stop", "clear", "hold", "acquire", "release", "wait"]), st.none()),
)


@settings(max_examples=100, deadline=None)
@given(events=st.lists(happening, max_size=25))
def test_no_sequence_of_events_moves_a_gripper_unlawfully(make_bench_once, events):
    bench = make_bench_once(grippers=GRIPPERS, config=GateConfig(persist_s=1e6))
    bench.sleep(0.02)
    only_joints = bench.spec.action_spec(base=False, progress=False, grippers=False)
    lease = bench.lease(Resource.ARM)
    for what, value in events:
        before = bench.last.grippers
        if what == "submit":
            bench.submit(lease, value, BOTH)
        elif what == "joints":
            bench.submit(lease, [value, 0.1, 0.0], only_joints)
        elif what == "acquire":
            lease = bench.lease(Resource.ARM)
        elif what == "stop":
            bench.gate.stop("operator")
        elif what == "clear":
            bench.gate.clear_stop()
        elif what in ("hold", "release"):
            getattr(bench.gate, what)(lease)
        bench.sleep(0.03)
        if what not in ("submit", "wait"):
            assert np.array_equal(bench.last.grippers, before, equal_nan=True)
    bench.gate.stop("end")
    before = bench.last.grippers
    bench.sleep(0.3)
    assert np.array_equal(bench.last.grippers, before, equal_nan=True)
    bench.assert_lawful()
