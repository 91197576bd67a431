from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from py_trees.common import Status
from skill_bench import TICK_S, Bench, FakePolicy, holding, inline, input_spec, small_spec

from hal.types import ActionDim, ActionKind
from policies.chunk import Chunk
from policies.runner import InlineRunner
from policies.spec import PolicyInput
from skills.behaviours import PolicyLoop, PolicySlot
from skills.behaviours.policy import LoopLimits, policy_input
from skills.outcome import Outcome

Act = Callable[[PolicyInput, float], Sequence[float]]
# A frame that begins after the start of the loop is there within a camera period, its delay and a tick.
FIRST_S = 1 / 30 + 0.01 + TICK_S


def loop(bench: Bench, policy: FakePolicy, *, runner: InlineRunner | None = None, **options: object) -> PolicyLoop:
    limits = LoopLimits(**{k: options.pop(k) for k in list(options) if k in LoopLimits.__dataclass_fields__})
    slot = PolicySlot(runner or inline(policy), "act_policy_step_2.pth")
    return PolicyLoop(bench, slot, limits, **options)


def driving(bench: Bench, *, speed_mps: float = 0.1, act: Act | None = None, **spec: object) -> FakePolicy:
    """Holds the arm and drives straight on."""
    return FakePolicy(
        input_spec(bench.spec, **spec), act or (lambda inputs, t_s: holding(inputs, base=(speed_mps, 0.0)))
    )


def with_progress(bench: Bench, progress: Callable[[float], float]) -> FakePolicy:
    """Progress as a function of the clock's seconds since 0.2 s, when the bench is ready."""

    def act(inputs: PolicyInput, t_s: float) -> Sequence[float]:
        return holding(inputs, progress=progress(inputs.oldest_capture_s + t_s - 0.2))

    return FakePolicy(input_spec(bench.spec, progress=True), act)


def test_the_first_command_is_of_the_first_observation_after_the_start() -> None:
    bench = Bench()
    policy = driving(bench, act=lambda inputs, t_s: holding(inputs, base=(inputs.oldest_capture_s / 100, 0.0)))
    runner = inline(policy, latency_s=TICK_S)
    # Something from before is in flight, as after a warm-up or a run that was cut short.
    runner.offer(policy_input(policy.spec, bench.observation), bench.clock.now())
    began_s = bench.clock.now()
    bench.run(loop(bench, policy, runner=runner), 0.3)
    assert policy.resets == 1
    first = policy.seen[1]
    assert first.oldest_capture_s > began_s
    assert bench.asked[0].stamp_s >= first.oldest_capture_s + TICK_S
    assert bench.asked[0].action[6] == pytest.approx(first.oldest_capture_s / 100, abs=1e-7)


def test_progress_must_be_held_for_some_ticks() -> None:
    bench = Bench()
    leaf = loop(bench, with_progress(bench, lambda t_s: 0.96 if t_s > 1.0 else 0.5), progress_hold_ticks=5)
    took_s = bench.run(leaf)
    assert leaf.status == Status.SUCCESS
    assert leaf.feedback_message.startswith("progress 0.96 after ")
    high = [command for command in bench.asked if command.action[8] > 0.95]
    assert len(high) == 5
    # The new value fades in over the old one.
    assert 1.0 + 4 * TICK_S - 1e-9 <= took_s <= 1.0 + 0.2 + 6 * TICK_S


def test_progress_that_flickers_is_a_timeout_and_not_a_success() -> None:
    bench = Bench()
    policy = with_progress(bench, lambda t_s: 0.5)
    policy._act = lambda inputs, t_s: holding(inputs, progress=1.0 if len(policy.seen) % 3 else 0.5)
    slot = PolicySlot(inline(policy))
    leaf = PolicyLoop(bench, slot, LoopLimits(duration_s=2.0, progress_hold_ticks=5), n_action_steps=1)
    took_s = bench.run(leaf)
    assert (leaf.status, leaf.outcome) == (Status.FAILURE, Outcome.TIMEOUT)
    assert 2.0 <= took_s <= 2.0 + FIRST_S + TICK_S
    assert leaf.feedback_message.endswith("when the 2 s of the skill were over.")


def test_without_progress_the_end_of_the_time_is_success() -> None:
    bench = Bench()
    leaf = loop(bench, driving(bench), duration_s=1.5)
    took_s = bench.run(leaf)
    assert leaf.status == Status.SUCCESS
    assert leaf.feedback_message == "ran for 1.5 s"
    assert bench.asked[-1].stamp_s - bench.asked[0].stamp_s == pytest.approx(1.5, abs=TICK_S + 1e-9)
    assert took_s <= 1.5 + FIRST_S + TICK_S
    since_s = bench.clock.now()
    bench.clock.sleep_until(since_s + 0.2)
    assert not bench.robot.bases(since_s).any()


def test_with_progress_the_end_of_the_time_is_a_timeout() -> None:
    bench = Bench()
    leaf = loop(bench, with_progress(bench, lambda t_s: 0.3), duration_s=1.0)
    bench.run(leaf)
    assert (leaf.status, leaf.outcome) == (Status.FAILURE, Outcome.TIMEOUT)
    assert leaf.feedback_message == "progress was 0.30 when the 1 s of the skill were over."


def test_progress_that_stays_is_a_stall_where_that_is_asked_for() -> None:
    bench = Bench()
    leaf = loop(bench, with_progress(bench, lambda t_s: min(t_s / 2, 0.4)), stall_s=1.0)
    took_s = bench.run(leaf)
    assert (leaf.status, leaf.outcome) == (Status.FAILURE, Outcome.STALLED)
    # It rose until 0.8 s; steps of less than 0.02 do not count.
    assert 1.7 <= took_s <= 2.0
    assert leaf.feedback_message.startswith("progress stayed at 0.")
    assert leaf.feedback_message.endswith(" for 1 s.")


def test_the_message_changes_in_tenths_of_progress_only() -> None:
    bench = Bench()
    leaf = loop(bench, with_progress(bench, lambda t_s: t_s / 4), duration_s=10)
    messages = []
    for _ in range(40):
        bench.tick(leaf)
        messages.append(leaf.feedback_message)
    assert len(set(messages)) <= 6


def test_nan_from_the_policy_is_a_fault_and_never_reaches_the_gate() -> None:
    bench = Bench()
    policy = driving(bench)
    bad_s = 0.9

    def act(inputs: PolicyInput, t_s: float) -> Sequence[float]:
        return holding(inputs, base=(float("nan") if inputs.oldest_capture_s > bad_s else 0.1, 0.0))

    policy._act = act
    leaf = loop(bench, policy)
    bench.run(leaf)
    assert (leaf.status, leaf.outcome) == (Status.FAILURE, Outcome.FAULT)
    assert leaf.feedback_message == (
        "act_policy_step_2.pth: the policy gave nan as action 6 of step 0, which is not finite: its weights are "
        "damaged, or its training diverged. Activate another run, or train it again."
    )
    assert np.isfinite([command.action for command in bench.asked]).all()
    since_s = bench.clock.now()
    assert since_s <= bad_s + FIRST_S + 3 * TICK_S
    bench.clock.sleep_until(since_s + 0.1)
    assert not bench.robot.bases(since_s).any()


class Mute(InlineRunner):
    """Answers nothing from a time on."""

    mute_s = 1.0

    def poll(self, now_s: float) -> Chunk | None:
        return None if now_s >= self.mute_s else super().poll(now_s)


def test_a_policy_that_stops_answering_is_held_at_the_end_of_its_chunk_and_then_a_fault() -> None:
    bench = Bench()
    policy = driving(bench, chunk_size=6)
    leaf = loop(bench, policy, runner=Mute(policy), starve_s=1.0)
    bench.run(leaf)
    assert (leaf.status, leaf.outcome) == (Status.FAILURE, Outcome.FAULT)
    assert leaf.feedback_message.startswith("the policy act_policy_step_2.pth gave no action for 1 s: it hangs, or ")
    # The last chunk was made from a frame of at most 1.0 s, and lasts 5 steps of 40 ms.
    assert bench.asked[-1].stamp_s <= 1.2
    assert not bench.robot.bases(1.2 + TICK_S + 0.01).any()
    assert bench.clock.now() == pytest.approx(bench.asked[-1].stamp_s + 1.0, abs=3 * TICK_S)


def test_a_policy_that_never_answers_is_a_fault_and_moves_nothing() -> None:
    bench = Bench()
    policy = driving(bench)
    runner = Mute(policy)
    runner.mute_s = 0.0
    leaf = loop(bench, policy, runner=runner, first_action_s=2.0)
    bench.tick(leaf)
    assert leaf.feedback_message == "waiting for the first action"
    assert bench.run(leaf) == pytest.approx(2.0, abs=TICK_S)
    assert leaf.feedback_message.startswith("the policy act_policy_step_2.pth gave no action for 2 s: it hangs, or ")
    assert not bench.asked


@pytest.mark.parametrize(("cameras_hz", "hold_s", "fail_s"), [(30.0, 0.15, 0.5), (15.0, 4 / 15, 0.8)])
@pytest.mark.parametrize("chunk_size", [100, 4])
def test_a_frozen_camera_halts_the_base_and_is_a_fault_that_names_it(
    cameras_hz: float, hold_s: float, fail_s: float, chunk_size: int
) -> None:
    bench = Bench(spec=small_spec(cameras_hz=cameras_hz))
    leaf = loop(bench, driving(bench, chunk_size=chunk_size, speed_mps=0.3))
    bench.run(leaf, 1.0)
    frozen_s = bench.clock.now()
    bench.inject("freeze:arm_camera")
    assert bench.robot.written[-1].base_velocity[0] > 0.25
    took_s = bench.run(leaf)
    # Within 200 ms for the cameras of a robot (30 Hz): the frame may be as old as the hold limit says.
    assert not bench.robot.bases(frozen_s + hold_s + 0.011).any()
    if cameras_hz == 30.0:
        assert not bench.robot.bases(frozen_s + 0.2).any()
    assert took_s <= fail_s + TICK_S
    assert (leaf.status, leaf.outcome) == (Status.FAILURE, Outcome.FAULT)
    assert leaf.feedback_message.startswith(f"Sensor arm_camera is {fail_s:.2f}"[:-1])
    assert leaf.feedback_message.endswith(
        f"(limit {fail_s:.2f} s). Check its connection and its driver, then run again."
    )


def test_a_glitch_of_the_joints_is_bridged_and_lost_joints_are_a_fault() -> None:
    bench = Bench()
    leaf = loop(bench, driving(bench))
    bench.run(leaf, 1.0)
    bench.inject("nan_joints")
    bench.run(leaf, TICK_S)
    bench.robot.faults.heal()
    bench.run(leaf, 0.5)
    assert leaf.status == Status.RUNNING
    bench.inject("nan_joints")
    bench.run(leaf)
    assert leaf.outcome is Outcome.FAULT
    assert leaf.feedback_message.startswith("Sensor joints has read no numbers (NaN) for 0.5")


@pytest.mark.parametrize("speed", [1.0, 0.5])
def test_speed_slows_arm_and_base_together(speed: float) -> None:
    """In the demonstration joint 1 turns at 0.2 rad/s while the base drives at 0.2 m/s."""
    bench = Bench()
    start_rad = float(bench.observation.qpos[0])
    began: list[float] = []

    def act(inputs: PolicyInput, t_s: float) -> Sequence[float]:
        began.append(inputs.oldest_capture_s)
        shown_s = (inputs.oldest_capture_s - began[0]) * speed + t_s
        return [start_rad + 0.2 * shown_s, *holding(inputs, base=(0.2, 0.0))[1:]]

    leaf = loop(bench, driving(bench, act=act, chunk_size=30), speed=speed, duration_s=3.0)
    bench.run(leaf)
    assert leaf.status == Status.SUCCESS
    actions = np.array([command.action for command in bench.asked])
    np.testing.assert_allclose(actions[:, 6], 0.2 * speed, atol=1e-6)
    turned_rad = actions[-1, 0] - actions[0, 0]
    assert turned_rad == pytest.approx(0.2 * speed * (bench.asked[-1].stamp_s - bench.asked[0].stamp_s), rel=1e-3)


@pytest.mark.parametrize("speed", [1.0, 0.5])
@pytest.mark.parametrize("hz", [10.0, 20.0, 30.0])
@pytest.mark.parametrize("chunk_mode", ["blend", "ensemble", "receding"])
def test_data_of_any_rate_moves_joints_and_base_as_fast_as_demonstrated(
    chunk_mode: str, hz: float, speed: float
) -> None:
    """In the demonstration the base speeds up by 0.05 m/s each second, and joint 1 turns at twice its number."""
    bench = Bench()
    joints = [joint.name for joint in bench.spec.joints if not joint.gripper]
    dims = (
        *(ActionDim(name=f"{j}_vel", kind=ActionKind.JOINT_VELOCITY, unit="rad/s", target=j) for j in joints),
        ActionDim.base("linear", 0.4),
        ActionDim.base("angular", 1.0),
    )
    began: list[float] = []

    def act(inputs: PolicyInput, t_s: float) -> Sequence[float]:
        began.append(inputs.oldest_capture_s)
        shown_mps = 0.05 * ((inputs.oldest_capture_s - began[0]) * speed + t_s)
        return [2 * shown_mps, *[0.0] * (len(joints) - 1), shown_mps, 0.0]

    changes = {"action": tuple(dim.model_dump(mode="json") for dim in dims)}
    policy = driving(bench, act=act, hz=hz, chunk_size=round(2 * hz), **changes)
    leaf = loop(bench, policy, speed=speed, duration_s=3.0, n_action_steps=5, chunk_mode=chunk_mode)
    bench.run(leaf)
    assert leaf.status == Status.SUCCESS
    shown_s = (np.array([command.stamp_s for command in bench.asked]) - began[0]) * speed
    actions = np.array([command.action for command in bench.asked])
    np.testing.assert_allclose(actions[:, -2], 0.05 * shown_s * speed, atol=1e-6)
    np.testing.assert_allclose(actions[:, 0], 0.1 * shown_s * speed, atol=1e-6)
    # What the demonstration turned by in its own time, the joint has turned by in as much of it as was shown.
    arms = bench.robot.arms(bench.asked[0].stamp_s, bench.asked[-1].stamp_s)
    demonstrated_rad = 0.1 / 2 * (shown_s[-1] ** 2 - shown_s[0] ** 2)
    assert arms[-1, 0] - arms[0, 0] == pytest.approx(demonstrated_rad, rel=0.05)


def two_minds(bench: Bench) -> FakePolicy:
    """Each chunk drives at another speed than the one before it: 0 or 0.2 m/s."""
    policy = driving(bench)
    policy._act = lambda inputs, t_s: holding(inputs, base=(0.2 * (len(policy.seen) % 2), 0.0))
    return policy


def driven(chunk_mode: str | None, n_action_steps: int | None) -> np.ndarray:
    """(N,) the base speeds that are commanded to a policy of two minds in 2 s."""
    bench = Bench()
    leaf = loop(bench, two_minds(bench), duration_s=2.0, chunk_mode=chunk_mode, n_action_steps=n_action_steps)
    bench.run(leaf)
    assert leaf.status == Status.SUCCESS
    return np.array([command.action[6] for command in bench.asked])


def test_the_chunk_mode_says_how_a_chunk_follows_another() -> None:
    faded, averaged, switched = driven("blend", 10), driven("ensemble", None), driven("receding", 10)
    assert np.abs(np.diff(faded)).max() == pytest.approx(0.2 * TICK_S / 0.3, rel=1e-3)
    assert faded.max() == pytest.approx(0.2)
    np.testing.assert_allclose(averaged[25:], 0.1, atol=0.02)
    assert set(np.round(switched, 6)) == {0.0, 0.2}


@pytest.mark.parametrize(("n_action_steps", "chunk_mode"), [(10, "blend"), (None, "ensemble")])
def test_without_a_chunk_mode_the_steps_between_looks_decide(n_action_steps: int | None, chunk_mode: str) -> None:
    assert driven(None, n_action_steps).tolist() == driven(chunk_mode, n_action_steps).tolist()


def test_the_loop_tells_where_the_seams_are() -> None:
    bench = Bench()
    leaf = loop(bench, two_minds(bench), chunk_mode="receding", n_action_steps=10)
    entered = []
    assert leaf.entered_chunks == 0
    while len(bench.asked) < 50:
        bench.tick(leaf)
        entered += [leaf.entered_chunks] * (len(bench.asked) - len(entered))
    speeds = np.round([command.action[6] for command in bench.asked], 6)
    assert np.flatnonzero(np.diff(entered)).tolist() == np.flatnonzero(np.diff(speeds)).tolist()
    assert entered[0] == 1
    assert entered[-1] > 3


def test_a_policy_of_other_joints_is_refused_before_anything_moves() -> None:
    bench = Bench()
    names = ("joint2", "joint1", *bench.spec.joint_names[2:])
    leaf = loop(bench, driving(bench, joint_names=names))
    assert bench.tick(leaf) == Status.FAILURE
    assert leaf.outcome is Outcome.FAULT
    assert "act_policy_step_2.pth sees the joints joint2, joint1" in leaf.feedback_message
    assert not bench.asked


def test_a_policy_that_asks_for_too_much_for_too_long_is_a_fault() -> None:
    bench = Bench()
    leaf = loop(bench, driving(bench, speed_mps=10.0))
    bench.run(leaf)
    assert leaf.outcome is Outcome.FAULT
    assert "base_linear was asked 10, limits -0.4 to 0.4" in leaf.feedback_message
    assert np.abs(bench.robot.bases(0.0)).max() <= 0.4


def test_a_policy_without_cameras_acts_on_the_joints() -> None:
    bench = Bench()
    leaf = loop(bench, driving(bench, cameras=()), duration_s=0.5)
    bench.run(leaf)
    assert leaf.status == Status.SUCCESS
