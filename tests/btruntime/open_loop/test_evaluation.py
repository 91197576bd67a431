"""Which checkpoint and which episodes are taken, what is refused, and that a real run agrees with its own record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from open_loop_bench import ACTIONS, CHUNK, HELD_OUT, HYPERPARAMETERS, SIDE, TRAINING, add_run, make_skill, record

from btruntime.open_loop import ActionName, OpenLoopRefusedError, Yardstick, open_loop
from btruntime.training.run_ids import RunError
from btruntime.training.trainer.cache import DataError
from btruntime.training.trainer.config import TrainerConfig
from btruntime.training.trainer.events import Event, Preparing
from btruntime.training.trainer.train import train
from foundation.files import PathEscapesError
from policies.manifest import read_run, write_run
from skills.metadata import update_metadata


def test_the_report(tmp_path: Path) -> None:
    skill = make_skill(tmp_path)
    add_run(skill)
    events, told = list[Event](), list[tuple[int, int]]()
    report = open_loop(
        skill, device="cpu", report=events.append, progress=lambda done, total: told.append((done, total))
    )
    assert (report.skill, report.run_id, report.checkpoint) == ("press", "1", "act_policy_step_5.pth")
    assert (report.horizon, report.n_action_steps, report.rate_hz) == (CHUNK, 2, 10.0)
    assert report.episodes == (HELD_OUT,)
    assert report.training_episodes == TRAINING
    assert report.dims == (ActionName("pan", "rad"), ActionName("lift", "rad"))
    assert report.notes == ()
    # The mean (2.8, 8.4) against 1, 3, 5, 7 from steps 0 to 3 on: 1.8, 0.2, 2.2, 4.2 once to four times.
    assert report.yardsticks[Yardstick.MEAN].by_dim == pytest.approx(((1.8 + 2 * 0.2 + 3 * 2.2 + 4 * 4.2) / 10, 7.4))
    assert any(isinstance(event, Preparing) for event in events)
    assert told == [(4, 4)]


def test_a_named_run_instead_of_the_active_one(tmp_path: Path) -> None:
    skill = make_skill(tmp_path)
    add_run(skill)
    add_run(skill, "other", active=False, chunk_size=3)
    assert open_loop(skill, device="cpu").run_id == "1"
    assert open_loop(skill, run="other", device="cpu").horizon == 3
    with pytest.raises(RunError):
        open_loop(skill, run="../other", device="cpu")


def test_a_run_cannot_name_a_checkpoint_outside(tmp_path: Path) -> None:
    skill = make_skill(tmp_path)
    directory = add_run(skill).parent
    manifest = read_run(directory)
    write_run(directory, manifest.model_copy(update={"metrics": {"checkpoint": "../../elsewhere.pth"}}))
    with pytest.raises(PathEscapesError, match=r"run\.json: metrics\.checkpoint"):
        open_loop(skill, run="1", device="cpu")


def test_what_the_skill_says_decides_when_the_executor_looks(tmp_path: Path) -> None:
    skill = make_skill(tmp_path)
    add_run(skill)
    update_metadata(skill / "metadata.json", execution={"n_action_steps": 4})
    assert open_loop(skill, device="cpu").n_action_steps == 4
    assert open_loop(skill, device="cpu", n_action_steps=3).n_action_steps == 3
    update_metadata(skill / "metadata.json", execution={"n_action_steps": 400})
    assert open_loop(skill, device="cpu").n_action_steps == CHUNK


@pytest.mark.parametrize(
    ("of_run", "asked", "taken", "note"),
    [
        ({}, None, (HELD_OUT,), None),
        ({"validation_episodes": ["episode_3.h5"]}, None, (HELD_OUT,), None),
        ({"held_out_episodes": [], "validation_episodes": ["episode_3.h5"]}, None, ("episode_3.h5",), "also chose"),
        ({}, ["episode_3.h5"], ("episode_3.h5",), None),
        ({}, ["episode_3.h5", HELD_OUT, "episode_3.h5"], (HELD_OUT, "episode_3.h5"), None),
        ({}, [HELD_OUT, "episode_1.h5"], ("episode_1.h5", HELD_OUT), "was trained on episode_1.h5"),
    ],
)
def test_which_episodes_are_taken(
    tmp_path: Path, of_run: dict[str, Any], asked: list[str] | None, taken: tuple[str, ...], note: str | None
) -> None:
    skill = make_skill(tmp_path)
    record(skill / "data", [(0, 0), (1, 1)])
    add_run(skill, hyperparameters={**HYPERPARAMETERS, **of_run})
    report = open_loop(skill, episodes=asked, allow_training=note is not None, device="cpu")
    assert report.episodes == taken
    assert len(report.notes) == (note is not None)
    assert all(note in each for each in report.notes if note)


@pytest.mark.parametrize(
    ("of_run", "options", "sentence"),
    [
        ({"held_out_episodes": []}, {}, r"held out no episode.*hold_out=\[3, 7\]"),
        ({}, {"episodes": []}, "held out no episode"),
        ({}, {"episodes": [HELD_OUT, "episode_0.h5"]}, r"was trained on episode_0\.h5.*--training-episodes"),
        ({}, {"episodes": ["episode_9.h5"]}, r"no usable episode_9\.h5; it has episode_0\.h5"),
        ({"training_episodes": ["episode_8.h5"]}, {}, r"no usable episode_8\.h5 any more"),
        ({"training_episodes": []}, {}, "training_episodes is empty"),
        ({"training_episodes": 3}, {}, r"run\.json: hyperparameters\.training_episodes: .*valid tuple"),
        ({}, {"horizon": CHUNK + 1}, "horizon is 7, expected 1 to 6"),
    ],
)
def test_what_is_refused(tmp_path: Path, of_run: dict[str, Any], options: dict[str, Any], sentence: str) -> None:
    skill = make_skill(tmp_path)
    add_run(skill, hyperparameters={**HYPERPARAMETERS, **of_run})
    with pytest.raises(OpenLoopRefusedError, match=sentence):
        open_loop(skill, device="cpu", **options)


def test_a_run_of_another_trainer_does_not_say_what_it_was_trained_on(tmp_path: Path) -> None:
    skill = make_skill(tmp_path)
    add_run(skill, hyperparameters={})
    with pytest.raises(OpenLoopRefusedError, match=r"hyperparameters\.training_episodes: Field required"):
        open_loop(skill, device="cpu")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"joint_names": ("lift", "pan")},
            r"have joints \('pan', 'lift'\), the run was trained with \('lift', 'pan'\)",
        ),
        ({"data_frequency_hz": 20.0}, "data_frequency 10.0, the run was trained with 20.0"),
        ({"action": ({"name": "pan", "unit": "rad"}, {"name": "lift", "unit": "m"})}, r"actions .*'lift \(rad\)'"),
        ({"cameras": ()}, r"cameras \('top',\), the run was trained with \(\)"),
    ],
)
def test_episodes_of_another_kind_than_the_policy(tmp_path: Path, changes: dict[str, Any], sentence: str) -> None:
    skill = make_skill(tmp_path)
    add_run(skill, **changes)
    with pytest.raises(OpenLoopRefusedError, match=sentence):
        open_loop(skill, device="cpu")


def test_a_skill_without_an_active_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(OpenLoopRefusedError, match="no active checkpoint"):
        open_loop(make_skill(tmp_path), device="cpu")


def test_a_broken_episode_is_left_out_only_when_asked(tmp_path: Path) -> None:
    skill = make_skill(tmp_path)
    add_run(skill)
    (skill / "data" / "episode_3.h5").write_bytes(b"no episode")
    with pytest.raises(DataError, match="--skip-broken"):
        open_loop(skill, device="cpu")
    assert open_loop(skill, device="cpu", skip_broken=True).episodes == (HELD_OUT,)


def test_a_callback_can_end_it(tmp_path: Path) -> None:
    skill = make_skill(tmp_path)
    add_run(skill)

    class EnoughError(Exception):
        pass

    told = []

    def progress(done: int, total: int) -> None:
        told.append(done)
        if done == 2:
            raise EnoughError

    with pytest.raises(EnoughError):
        open_loop(skill, device="cpu", batch_size=1, progress=progress)
    assert told == [1, 2]


def test_a_trained_run_gives_the_error_that_its_record_has(tmp_path: Path) -> None:
    skill = make_skill(tmp_path)
    for actions in ACTIONS[:2]:
        record(skill / "data", actions)
    config = TrainerConfig(
        chunk_size=CHUNK,
        batch_size=2,
        max_steps=2,
        image_height=SIDE,
        image_width=SIDE,
        dim_model=16,
        heads=2,
        dim_feedforward=16,
        encoder_layers=1,
        decoder_layers=1,
        vae_encoder_layers=1,
        backbone_width=2,
        checkpoints=1,
        num_workers=0,
        validation_share=0.25,
        hold_out=(2,),
        device="cpu",
    )
    trained = train(skill, "1", config)
    assert open_loop(skill, run="1", device="cpu").episodes == (HELD_OUT,)
    validation = read_run(trained.directory).hyperparameters["validation_episodes"]
    again = open_loop(skill, run="1", episodes=validation, device="cpu")
    assert again.policy.l1 == pytest.approx(trained.metrics["best"]["l1"], rel=1e-5)
    assert len(list((skill / ".cache").glob("*/cache.json"))) == 1
