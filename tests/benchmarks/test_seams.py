from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from py_trees.common import Status
from seams import (
    COLUMNS,
    LATENCIES_MS,
    MODES,
    Remembering,
    Watched,
    columns_of,
    execution_of,
    figures,
    in_mode,
    print_table,
    real_part,
    relative_steps,
    seam_jumps,
    simulated_part,
    step_limits,
    worst,
)
from skill_bench import FakePolicy, holding, input_spec, small_spec, write_learned

from hal.types import ActionDim, ActionKind, ActionSpec
from policies.spec import PolicyInput
from skills.behaviours import PolicyLoop

SPEC = ActionSpec(
    dims=(
        ActionDim(name="elbow_vel", kind=ActionKind.JOINT_VELOCITY, unit="rad/s", target="elbow"),
        ActionDim(name="wrist_vel", kind=ActionKind.JOINT_VELOCITY, unit="rad/s", target="wrist"),
        ActionDim.fraction("claw"),
        ActionDim(name="progress", kind=ActionKind.PROGRESS, unit="1", low=0, high=1),
    )
)


def test_a_limit_is_a_demonstrated_step_shared_out_to_ticks() -> None:
    slow, fast = np.arange(100.0)[:, None] * [0.1, 0.0], np.arange(100.0)[:, None] * [-0.1, 2.0]
    limits = step_limits([slow, fast], rate_hz=10.0, tick_s=0.04)
    # 10 Hz: each step is spread over 2.5 ticks. From one episode to the next is no step.
    assert limits == pytest.approx([0.04, 0.8])


def test_a_limit_leaves_out_one_step_in_a_thousand() -> None:
    actions = np.concatenate([np.arange(1999) * 0.1, [1000.0]])[:, None]
    assert step_limits([actions], rate_hz=25.0) == pytest.approx([0.1])


def test_steps_are_relative_to_the_limit_of_their_dimension() -> None:
    commanded = np.array([[0.0, 0.0], [0.1, -2.0], [0.1, -1.0]])
    assert relative_steps(commanded, np.array([0.1, 4.0])).tolist() == [[1.0, 0.5], [0.0, 0.25]]


def test_a_dimension_that_people_never_moved_has_no_jump() -> None:
    relative = relative_steps(np.array([[0.0, 5.0], [1.0, 6.0]]), np.array([2.0, 0.0]))
    assert relative[0, 0] == 0.5
    assert np.isnan(relative[0, 1])
    assert worst(relative, [0, 1], 99) == 0.5
    assert worst(relative, [1], 99) is None


def test_a_seam_lasts_until_it_is_faded_or_the_next_begins() -> None:
    steps = np.arange(1.0, 11.0)[:, None]
    entered = [1, 1, 2, 2, 3, 3, 3, 3, 3, 3, 3]
    # The chunk of command 2 came with step 1 (from command 1 to 2), that of command 4 with step 3.
    assert seam_jumps(steps, entered, window=5).tolist() == [[3.0], [8.0]]
    assert seam_jumps(steps, entered, window=1).tolist() == [[2.0], [4.0]]


def test_the_first_chunk_is_no_seam() -> None:
    jumps = seam_jumps(np.ones((4, 2)), [1, 1, 1, 1, 1])
    assert jumps.shape == (0, 2)
    assert worst(jumps, [0, 1], 99) is None


def test_grippers_are_apart_and_progress_moves_nothing() -> None:
    assert columns_of(SPEC) == ([2], [0, 1])


def test_the_largest_of_the_dimensions_counts() -> None:
    values = np.array([[0.1, 0.5, 9.0], [0.4, 0.2, 9.0]])
    assert worst(values, [0, 1], 100) == 0.5
    assert worst(values, [0, 1], 0) == 0.4


def watched(commanded: list[list[float]], entered: list[int], **values: Any) -> Watched:
    return Watched(SimpleNamespace(), SPEC.names, commanded, entered, **values)  # type: ignore[arg-type]


def test_the_figures_of_some_playbacks() -> None:
    still, limits = [0.0] * 4, np.array([0.1, 0.2, 0.5, 0.1])
    first = watched([still, [0.2, 0.1, 0.0, 1.0], [0.2, 0.1, 1.0, 0.0]], [1, 2, 2], held_ticks=3, tracking_l1=0.4)
    second = watched([still, [0.0, 0.1, 0.0, 0.0], still], [1, 1, 1], held_ticks=1, tracking_l1=0.6)
    found = figures([first, second], limits, SPEC)
    assert (found["seams"], found["held_ticks"]) == (1, 4)
    assert found["tracking_l1"] == pytest.approx(0.5)
    # The step of 0.2 is twice the limit; the gripper's whole stroke follows within the seam, progress is none.
    assert (found["jump_p99"], found["jump_max"], found["gripper_jump_p99"]) == (2.0, 2.0, 2.0)
    assert found["step_p99"] == pytest.approx(np.percentile([2.0, 0.0, 0.5, 0.5], 99))


class Played(PolicyLoop):
    """A loop in a given state."""

    def __init__(self, status: Status, entered: int):
        self.status, self._entered = status, entered

    @property
    def entered_chunks(self) -> int:
        return self._entered


def test_only_what_the_loop_asks_for_is_watched() -> None:
    move, asked = {"elbow": 1.0}, dict(zip(SPEC.names, (0.1, 0.2, 1.0, 0.5), strict=True))
    run = watched([], [])
    for status, entered, values in (
        (Status.INVALID, 0, move),
        (Status.RUNNING, 0, None),
        (Status.RUNNING, 1, {**move, **asked}),
        (Status.RUNNING, 1, None),
        (Status.RUNNING, 2, asked),
        (Status.SUCCESS, 2, move),
    ):
        run.loop = Played(status, entered)
        run.watch(SimpleNamespace(asked=values))  # type: ignore[arg-type]
    assert run.commanded == [[0.1, 0.2, 1.0, 0.5]] * 2
    assert (run.entered, run.held_ticks) == ([1, 2], 1)


def test_an_observation_is_computed_once() -> None:
    robot = small_spec()
    policy = FakePolicy(input_spec(robot, cameras=["arm_camera"]), lambda inputs, t_s: holding(inputs, base=(t_s, 0.0)))
    remembering = Remembering(policy)
    state, black = np.zeros(6, np.float32), np.zeros((6, 8, 3), np.uint8)
    first = remembering.predict(PolicyInput(state, {"arm_camera": black}, 1.0))
    again = remembering.predict(PolicyInput(state.copy(), {"arm_camera": black.copy()}, 2.0))
    assert again is first
    remembering.predict(PolicyInput(state + 1, {"arm_camera": black}, 3.0))
    remembering.predict(PolicyInput(state, {"arm_camera": black + 1}, 3.0))
    assert len(policy.seen) == len(remembering.chunks) == 3


def test_a_mode_changes_how_chunks_are_played_and_nothing_else(tmp_path: Path) -> None:
    entry = write_learned(tmp_path, "pick", input_spec(small_spec()), n_action_steps=7, duration=9.0)
    said = [execution_of(in_mode(entry, mode)) for mode in MODES]
    assert [(each.chunk_mode, each.n_action_steps) for each in said] == [
        ("blend", 7),
        ("ensemble", None),
        ("receding", 7),
    ]
    assert {(each.duration, each.checkpoint) for each in said} == {(9.0, execution_of(entry).checkpoint)}
    assert execution_of(entry).chunk_mode is None


def test_what_cannot_be_measured_is_null(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = real_part(tmp_path / "absent", tmp_path / "skills", quick=True)
    assert "absent is not there" in capsys.readouterr().err
    assert not (tmp_path / "skills").exists()
    assert found["limit"] is None
    for mode in MODES:
        for latency in LATENCIES_MS:
            assert found["modes"][mode][str(latency)] == dict.fromkeys(COLUMNS)
    print_table(found)
    assert "| `receding` | 250 |" in capsys.readouterr().out
    assert simulated_part(None, 4) == {}
