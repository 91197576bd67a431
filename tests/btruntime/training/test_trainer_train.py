"""Whole runs: what they leave on disk, and that an interrupted one continues as if nothing had happened."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from btruntime.training.local import activate_run
from btruntime.training.run_ids import RunError
from btruntime.training.trainer.cache import DataError
from btruntime.training.trainer.config import TrainerConfig, presets
from btruntime.training.trainer.events import Estimate, Event, Finished, Note, Progress, Saved, Validated
from btruntime.training.trainer.outputs import suggested_execution
from btruntime.training.trainer.runs import STATE_FILE, ResumeError
from btruntime.training.trainer.train import Interrupted, TrainingError, train
from foundation.files import sha256_of
from policies.checkpoint import load
from policies.manifest import read_run
from policies.normalize import load_statistics
from skills.episodes import Episode
from skills.locks import OwnedLock
from skills.metadata import LearnedExecution

from .conftest import MakeSkill, record


class StopAfter:
    """Asks for a stop once it has been asked `calls` times."""

    def __init__(self, calls: int):
        self.calls = calls

    def __call__(self) -> int:
        self.calls -= 1
        return 15 if self.calls <= 0 else 0


def interrupted_after(skill: Path, run_id: str, config: TrainerConfig, steps: int) -> None:
    progress: list[Event] = []

    def stop() -> int:
        return 15 if any(isinstance(e, Progress) and e.step >= steps for e in progress) else 0

    with pytest.raises(Interrupted, match=f"stopped after step {steps} of {config.max_steps}"):
        train(skill, run_id, config.model_copy(update={"log_every": 1}), progress.append, stop=stop)


def test_a_run_leaves_checkpoint_statistics_and_record(make_skill: MakeSkill, tiny: TrainerConfig) -> None:
    skill, events = make_skill(), list[Event]()
    trained = train(skill, "1", tiny, events.append)

    manifest = read_run(trained.directory)
    assert trained.checkpoint.parent == skill / "1"
    assert manifest.metrics["finished"] is True
    assert set(manifest.hyperparameters["training_episodes"]).isdisjoint(
        manifest.hyperparameters["validation_episodes"]
    )
    assert len(manifest.hyperparameters["validation_episodes"]) == 1
    assert all(sha256_of(trained.directory / name) == entry.sha256 for name, entry in manifest.files.items())
    assert {path.name for path in trained.directory.iterdir()} == {*manifest.files, "run.json"}
    assert load(trained.checkpoint).spec.chunk_size == tiny.chunk_size
    assert trained.action_dim == 7

    kinds = [type(event) for event in events]
    assert kinds.index(Estimate) < kinds.index(Progress)
    assert [event.step for event in events if isinstance(event, Progress)] == [2, 4, 6]
    assert [event.step for event in events if isinstance(event, Validated)] == [3, 6]
    assert [event.step for event in events if isinstance(event, Saved)] == [3, 6]
    assert isinstance(events[-1], Finished)
    validated = next(event for event in events if isinstance(event, Validated))
    assert set(validated.l1_by_dim) == {
        "pan", "lift", "hand", "base_linear", "base_angular", "progress", "termination",
    }  # fmt: skip


def test_best_and_last_are_kept(make_skill: MakeSkill, tiny: TrainerConfig) -> None:
    config = tiny.model_copy(update={"checkpoints": 6})
    trained = train(make_skill(), "1", config)
    best = min(trained.metrics["validation"], key=lambda measured: measured["l1"])["step"]
    assert set(read_run(trained.directory).checkpoints()) == {best, 6}
    assert trained.checkpoint.name == f"act_policy_step_{best}.pth"
    everything = train(trained.directory.parent, "2", config.model_copy(update={"keep_all_checkpoints": True}))
    assert list(read_run(everything.directory).checkpoints()) == [1, 2, 3, 4, 5, 6]


def test_statistics_and_start_pose_come_from_the_training_episodes(make_skill: MakeSkill, tiny: TrainerConfig) -> None:
    skill = make_skill(episodes=4)
    trained = train(skill, "1", tiny)
    names = read_run(trained.directory).hyperparameters["training_episodes"]
    assert len(names) == 3
    rows, first = [], []
    for name in names:
        with Episode(skill / "data" / name) as episode:
            rows.append(episode.qpos)
            first.append(episode.qpos[0])
    statistics = load_statistics(trained.statistics)
    np.testing.assert_allclose(statistics.state.mean, np.concatenate(rows).mean(axis=0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(trained.start_pose, np.median(first, axis=0), rtol=1e-5)


@pytest.mark.parametrize("steps", [1, 3, 5])
def test_a_resumed_run_equals_a_straight_one(make_skill: MakeSkill, tiny: TrainerConfig, steps: int) -> None:
    skill = make_skill()
    straight = train(skill, "straight", tiny)
    interrupted_after(skill, "resumed", tiny, steps)
    assert (skill / "resumed" / STATE_FILE).exists()
    resumed = train(skill, "resumed", tiny, resume=True)
    assert not (skill / "resumed" / STATE_FILE).exists()
    assert resumed.metrics["validation"] == straight.metrics["validation"]
    mine = torch.load(resumed.checkpoint, weights_only=True)
    theirs = torch.load(straight.checkpoint, weights_only=True)
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


def test_threads_that_gather_ahead_change_nothing(make_skill: MakeSkill, tiny: TrainerConfig) -> None:
    skill = make_skill()
    plain = train(skill, "1", tiny)
    ahead = train(skill, "2", tiny.model_copy(update={"num_workers": 2}))
    assert plain.metrics["validation"] == ahead.metrics["validation"]


def test_resuming_needs_the_same_run(make_skill: MakeSkill, tiny: TrainerConfig) -> None:
    skill = make_skill()
    interrupted_after(skill, "1", tiny, 2)
    with pytest.raises(ResumeError, match=r"started with batch_size 4 \(now 3\)"):
        train(skill, "1", tiny.model_copy(update={"batch_size": 3}), resume=True)
    with pytest.raises(RunError, match="exists already"):
        train(skill, "1", tiny)
    record(skill / "data", length=9, seed=9)
    with pytest.raises(ResumeError, match="the episodes changed"):
        train(skill, "1", tiny, resume=True)


def test_a_damaged_state_is_refused(make_skill: MakeSkill, tiny: TrainerConfig) -> None:
    skill = make_skill()
    interrupted_after(skill, "1", tiny, 2)
    state = skill / "1" / STATE_FILE
    state.write_bytes(state.read_bytes()[:1000])
    with pytest.raises(ResumeError, match="is damaged"):
        train(skill, "1", tiny, resume=True)
    state.unlink()
    with pytest.raises(ResumeError, match="nothing to resume"):
        train(skill, "1", tiny, resume=True)


def test_a_finished_run_is_given_back(make_skill: MakeSkill, tiny: TrainerConfig) -> None:
    skill = make_skill()
    trained = train(skill, "1", tiny)
    again = train(skill, "1", tiny, resume=True)
    assert again.checkpoint == trained.checkpoint
    assert again.start_pose == trained.start_pose


def test_two_trainers_do_not_share_a_run(make_skill: MakeSkill, tiny: TrainerConfig) -> None:
    skill = make_skill()
    interrupted_after(skill, "1", tiny, 2)
    lock = OwnedLock.try_take(skill / "1" / ".lock")
    assert lock is not None
    with pytest.raises(RunError, match="being trained by another process"):
        train(skill, "1", tiny, resume=True)
    lock.release()


def test_a_single_short_episode_trains_without_validation(make_skill: MakeSkill, tiny: TrainerConfig) -> None:
    events: list[Event] = []
    config = tiny.model_copy(update={"batch_size": 32})
    trained = train(make_skill(episodes=1, length=2), "1", config, events.append)
    assert trained.checkpoint.name == "act_policy_step_6.pth"
    assert trained.metrics["best"] is None
    assert any(isinstance(event, Note) and "single episode" in event.text for event in events)
    assert not any(isinstance(event, Validated) for event in events)


def test_the_time_budget_ends_a_run_as_finished(make_skill: MakeSkill, tiny: TrainerConfig) -> None:
    trained = train(make_skill(), "1", tiny.model_copy(update={"max_minutes": 1e-9}))
    assert trained.metrics["step"] == 1
    assert trained.metrics["finished"] is True
    assert load(trained.checkpoint).file.path.name == "act_policy_step_1.pth"


def test_a_loss_that_is_not_finite_ends_the_run(make_skill: MakeSkill, tiny: TrainerConfig) -> None:
    config = tiny.model_copy(update={"kl_weight": 1e300})
    with pytest.raises(TrainingError, match="the loss is"):
        train(make_skill(), "1", config)


def test_no_data_leaves_no_run(tmp_path: Path, tiny: TrainerConfig) -> None:
    (tmp_path / "data").mkdir()
    with pytest.raises(DataError, match="holds no episode"):
        train(tmp_path, "1", tiny)
    assert not (tmp_path / "1").exists()


@pytest.mark.parametrize("run_id", ["data", "../1", "", ".hidden", "a/b"])
def test_a_run_stays_in_its_skill(make_skill: MakeSkill, tiny: TrainerConfig, run_id: str) -> None:
    with pytest.raises(RunError, match="cannot name a run"):
        train(make_skill(episodes=1), run_id, tiny)


def test_stopping_while_frames_are_prepared(make_skill: MakeSkill, tiny: TrainerConfig) -> None:
    skill = make_skill()
    with pytest.raises(Interrupted, match="nothing was trained"):
        train(skill, "1", tiny, stop=StopAfter(1))
    assert not (skill / "1").exists()


def test_it_suggests_how_long_the_skill_may_take(make_skill: MakeSkill, tiny: TrainerConfig) -> None:
    assert suggested_execution(tiny, 4.2) == {"duration": 9.0}
    assert suggested_execution(tiny, 0.5) == {"duration": 5.0}
    many = tiny.model_copy(update={"n_action_steps": 1000})
    assert suggested_execution(many, 4.0) == {"duration": 8.0, "n_action_steps": tiny.chunk_size}
    assert [presets()[name].n_action_steps for name in ("act-default", "demo", "demo-full")] == [None, 12, 12]


def test_activating_a_run_fills_in_what_it_suggests(make_skill: MakeSkill, tiny: TrainerConfig) -> None:
    skill = make_skill()
    record(skill / "data", length=60, seed=77)
    (skill / "metadata.json").write_text(json.dumps({"type": "learned", "execution": {"duration": None}}))
    trained = train(skill, "1", tiny.model_copy(update={"n_action_steps": 2}))
    execution = activate_run(skill, "1").execution
    assert isinstance(execution, LearnedExecution)
    assert (execution.duration, execution.n_action_steps) == (12.0, 2)
    assert execution.start_pose == trained.start_pose
    assert execution.action_dim == 7


def test_what_is_held_out_is_not_seen_at_all(make_skill: MakeSkill, tiny: TrainerConfig) -> None:
    """The run is to the last bit the one that it would have been without those episodes."""
    skill, notes = make_skill(), list[str]()
    config = tiny.model_copy(update={"hold_out": (3, 3)})
    kept_out = train(skill, "1", config, lambda event: notes.append(event.text) if isinstance(event, Note) else None)
    found = read_run(kept_out.directory).hyperparameters
    assert found["held_out_episodes"] == ["episode_3.h5"]
    assert sorted(found["training_episodes"] + found["validation_episodes"]) == [f"episode_{n}.h5" for n in range(3)]
    assert "training on 2 episodes, 1 to choose the checkpoint, 1 kept out for evaluation" in notes
    (skill / "data" / "episode_3.h5").unlink()
    without = train(skill, "2", tiny)
    one, other = load(kept_out.checkpoint).network.state_dict(), load(without.checkpoint).network.state_dict()
    assert set(one) == set(other)
    assert all(torch.equal(weights, other[name]) for name, weights in one.items())


@pytest.mark.parametrize(
    ("numbers", "says"),
    [((0, 9), r"hold_out names episode_9\.h5; the skill has"), ((0, 1, 2, 3), "no episode to train")],
)
def test_holding_out_what_is_not_there_or_all_of_it_is_refused(
    make_skill: MakeSkill, tiny: TrainerConfig, numbers: tuple[int, ...], says: str
) -> None:
    with pytest.raises(DataError, match=says):
        train(make_skill(), "1", tiny.model_copy(update={"hold_out": numbers}))
