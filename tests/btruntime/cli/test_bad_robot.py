"""Robots, cameras and policies that fail in the middle of a run: a sentence, status 1, a robot at rest, a record."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
import torch
from processes import CHECKPOINT, Ended, Place, children, end, ran, said, under_way, until

from btruntime.events import Outcome
from btruntime.flight import Flight, read_flight
from foundation.files import sha256_of
from policies.manifest import FileEntry, read_run, write_run
from skills.metadata import update_metadata

RUN = ("run", "press", "--quiet")
FAST = (*RUN, "--fast")

# A run whose policy goes wrong after some passes; what it says before is what a checkpoint says.
_NAN_LATER = """
import sys
from policies.act.policy import ACTPolicy
predict, passes = ACTPolicy.predict, []
def spoilt(self, inputs):
    passes.append(inputs)
    return predict(self, inputs) * (float("nan") if len(passes) > 12 else 1)
ACTPolicy.predict = spoilt
from btruntime.cli import main
sys.exit(main())
"""


@pytest.fixture
def place(place: Place) -> Place:
    """With a skill that goes on until something is wrong."""
    update_metadata(place.skill / "metadata.json", execution={"duration": 60.0})
    return place


def faulted(place: Place, ended: Ended) -> Flight:
    """The record of a run that failed: what it says, a person was told; the base had moved, and is at rest."""
    flight = read_flight(place.flight())
    assert flight.result is not None
    assert flight.result.outcome is Outcome.FAULT
    assert ended.sentence == f"fault: {flight.result.reason}"
    assert flight.damage is None
    return flight


def bases(flight: Flight) -> list[float]:
    """What was sent to the wheels (m/s), tick by tick."""
    return [record.sent[6] for record in flight.ticks if record.sent is not None]


def assert_at_rest(flight: Flight) -> None:
    """The base drove and does not any more; the arm is held where it was."""
    driven = bases(flight)
    assert max(driven) > 0.05
    assert abs(driven[-1]) < 0.02
    first, last = (flight.ticks[index].sent for index in (-2, -1))
    assert first is not None
    assert last is not None
    assert first[:6] == pytest.approx(last[:6], abs=1e-3)


@pytest.mark.parametrize(
    ("fault", "names"),
    [
        ("freeze:arm_camera@3", "arm_camera"),
        ("late:main_camera:2@3", "main_camera"),
        ("drop_joints@3", "joints"),
        ("nan_joints@3", "joints"),
    ],
)
def test_a_sensor_that_fails_in_mid_run(place: Place, fault: str, names: str) -> None:
    ended = ran(place, *FAST, "--robot", f"sim:demo?fault={fault}")
    flight = faulted(place, ended)
    assert names in ended.sentence.lower()
    assert_at_rest(flight)
    assert flight.ticks[-1].time_s - flight.ticks[0].time_s < 5


def test_a_robot_that_stops_answering(place: Place) -> None:
    ended = ran(place, *FAST, "--robot", "sim:demo?fault=gone@3")
    flight = faulted(place, ended)
    assert ended.sentence == "fault: robot demo does not answer. Check its power and its connection."
    # It takes no command any more either, so that there is nothing to be seen of the rest.
    assert flight.ticks[-1].time_s - flight.ticks[0].time_s == pytest.approx(3, abs=0.2)


@pytest.mark.parametrize(("skill", "fault"), [("wave", "gone"), ("press", "freeze:arm_camera"), ("wave", "nan_joints")])
def test_a_robot_that_is_broken_from_the_start_does_not_move(place: Place, skill: str, fault: str) -> None:
    ended = ran(place, "run", skill, "--quiet", "--fast", "--robot", f"sim:demo?fault={fault}")
    flight = faulted(place, ended)
    assert not any(bases(flight))
    assert len({record.sent for record in flight.ticks if record.sent is not None}) <= 1


def test_a_policy_that_turns_to_nan_in_mid_run(place: Place) -> None:
    ended = ran(place, *FAST, "--robot", "sim:demo", program=_NAN_LATER)
    flight = faulted(place, ended)
    assert ended.sentence.startswith(f"fault: {CHECKPOINT}: the policy gave nan as action 0 of step 0")
    assert "not finite" in ended.sentence
    assert "Activate another run, or train it again." in ended.sentence
    assert max(bases(flight)) > 0.05


def test_finite_weights_whose_actions_overflow(place: Place) -> None:
    """In a process of its own, as on a robot; refused weights (NaN) would not be loaded at all."""
    state = torch.load(place.checkpoint, weights_only=True)
    (head,) = [name for name in state if name.endswith("action_head.weight")]
    state[head] = torch.full_like(state[head], 3e38)
    torch.save(state, place.checkpoint)
    manifest = read_run(place.run)
    changed = FileEntry(sha256=sha256_of(place.checkpoint), size=place.checkpoint.stat().st_size)
    write_run(place.run, manifest.model_copy(update={"files": {**manifest.files, CHECKPOINT: changed}}))
    ended = ran(place, *RUN, "--robot", "sim:demo", "--json")
    flight = faulted(place, ended)
    assert ended.sentence.startswith(f"fault: {CHECKPOINT}: the policy gave ")
    assert "which is not finite" in ended.sentence
    assert not any(bases(flight))
    assert json.loads(ended.out.splitlines()[-1])["outcome"] == "fault"


def drive(place: Place) -> bool:
    """Whether the base has been sent off, by what is in the record so far."""
    return said(place.flights, '"base_linear":')


def test_a_policy_process_that_is_killed(place: Place) -> None:
    with under_way(place, *RUN, "--robot", "sim:demo") as process:
        until(lambda: drive(place), process)
        (policy,) = children(process.pid)
        os.kill(policy, signal.SIGKILL)
        ended = end(process)
    flight = faulted(place, ended)
    assert ended.sentence == (
        f"fault: {CHECKPOINT}: The policy process was killed by SIGKILL (out of memory?). "
        "Run the skill again: its policy is loaded anew."
    )
    assert bases(flight)


@pytest.mark.slow
def test_a_policy_process_that_hangs(place: Place) -> None:
    with under_way(place, *RUN, "--robot", "sim:demo") as process:
        until(lambda: drive(place), process)
        (policy,) = children(process.pid)
        os.kill(policy, signal.SIGSTOP)
        ended = end(process)
    flight = faulted(place, ended)
    # What it said last is played to its end; then the robot holds, and after a second that is a fault.
    assert CHECKPOINT in ended.sentence
    assert "gave no action for 1 s" in ended.sentence
    assert_at_rest(flight)
    assert not Path(f"/proc/{policy}").exists()


def _as_made_for(place: Place, **changes: object) -> None:
    manifest = read_run(place.run)
    spec = manifest.input_spec.model_copy(update=changes)
    write_run(place.run, manifest.model_copy(update={"input_spec": spec}))


@pytest.mark.parametrize(
    ("field", "names"),
    [("joint_names", "made for the joints a, b"), ("cameras", "the policy sees camera top"), ("action", "elbow")],
)
def test_a_skill_of_another_robot_is_refused_before_anything_moves(place: Place, field: str, names: str) -> None:
    spec = read_run(place.run).input_spec
    changes = {
        "joint_names": ("a", "b", *spec.joint_names[2:]),
        "cameras": (spec.cameras[0].model_copy(update={"name": "top"}), *spec.cameras[1:]),
        "action": ({**spec.action[0], "target": "elbow"}, *spec.action[1:]),
    }
    _as_made_for(place, **{field: changes[field]})
    ended = ran(place, *FAST, "--robot", "sim:demo")
    assert ended.sentence.startswith(f"local/press cannot run on robot demo: 1/run.json: input_spec.{field}")
    assert names in ended.sentence
    assert "Use a skill that was made for this robot." in ended.sentence
    assert not place.flights.exists()
