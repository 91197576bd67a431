from __future__ import annotations

import numpy as np
import pytest
from tiny_policy import SPEC, TinyPolicy, tiny_input

from policies.runner import InlineRunner, PolicyError, PolicyRunner, checked_actions
from policies.spec import PolicyInput, PolicyInputError


def test_a_chunk_starts_when_its_oldest_frame_was_captured() -> None:
    runner: PolicyRunner = InlineRunner(TinyPolicy())
    assert runner.ready
    assert runner.poll(10.0) is None
    assert runner.offer(tiny_input(3.0, oldest_capture_s=9.95), 10.0)
    chunk = runner.poll(10.0)
    assert chunk is not None
    assert chunk.times_s == pytest.approx(9.95 + np.arange(5) / 10)
    assert chunk.actions[:, 0].tolist() == [3, 4, 5, 6, 7]
    assert runner.poll(10.0) is None


def test_speed_shortens_the_time_between_actions() -> None:
    runner = InlineRunner(TinyPolicy(), speed=2.0)
    runner.offer(tiny_input(), 0.0)
    chunk = runner.poll(0.0)
    assert chunk is not None
    assert chunk.end_s == pytest.approx(4 / 20)
    runner.reset(speed=0.5)
    runner.offer(tiny_input(), 0.0)
    slower = runner.poll(0.0)
    assert slower is not None
    assert slower.end_s == pytest.approx(4 / 5)
    with pytest.raises(ValueError, match="speed"):
        runner.reset(speed=0.0)


def test_a_late_policy_takes_no_second_observation_meanwhile() -> None:
    runner = InlineRunner(TinyPolicy(), latency_s=0.1)
    assert runner.offer(tiny_input(1.0, oldest_capture_s=0.0), 0.0)
    assert not runner.offer(tiny_input(2.0, oldest_capture_s=0.04), 0.04)
    assert runner.poll(0.04) is None
    chunk = runner.poll(0.04 + 0.04 + 0.02)
    assert chunk is not None
    assert chunk.actions[0, 0] == 1.0
    assert runner.offer(tiny_input(3.0), 0.12)


def test_no_chunk_survives_a_reset() -> None:
    policy = TinyPolicy()
    runner = InlineRunner(policy, latency_s=0.1)
    runner.offer(tiny_input(), 0.0)
    runner.reset()
    assert runner.poll(1.0) is None
    assert policy.resets == 1
    runner.offer(tiny_input(), 1.0)
    runner.close()
    assert runner.poll(2.0) is None


def test_a_refusal_of_the_policy_is_the_error() -> None:
    runner = InlineRunner(TinyPolicy())
    assert not runner.offer(tiny_input(-101.0), 0.0)
    assert runner.error == "The tiny policy does not go there."
    assert not runner.offer(tiny_input(), 0.0)


def test_an_observation_that_does_not_fit_is_no_fault_of_the_policy() -> None:
    runner = InlineRunner(TinyPolicy())
    with pytest.raises(PolicyInputError):
        runner.offer(PolicyInput(np.zeros(2, np.float32), {}, 0.0), 0.0)
    assert runner.error is None
    assert runner.offer(tiny_input(), 0.0)


@pytest.mark.parametrize(
    ("actions", "says"),
    [
        (np.zeros((4, 3)), r"\(4, 3\), expected \(5, 3\)"),
        (np.zeros(5), r"\(5,\)"),
        (np.where(np.arange(15).reshape(5, 3) == 7, np.inf, 0), "inf as action 1 of step 2"),
    ],
)
def test_what_is_no_chunk_is_refused(actions: np.ndarray, says: str) -> None:
    with pytest.raises(PolicyError, match=says):
        checked_actions(actions, SPEC)


class Told(TinyPolicy):
    report = "tiny, 1 ms"


def test_a_policy_that_reports_is_heard_and_one_that_does_not_is_none() -> None:
    assert InlineRunner(Told()).report == "tiny, 1 ms"
    assert InlineRunner(TinyPolicy()).report is None
