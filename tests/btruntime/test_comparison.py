"""A skill on a recording, as a person runs it: joint velocities, a gripper that nobody measures, a camera, no base."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from episode_bench import CAMERA, make_header, make_rows, pictures, save, write_video

from btruntime.cli.main import main
from btruntime.comparison import as_json
from btruntime.flight import read_flight
from btruntime.replay import replay_episode
from btruntime.runtime import PolicyPool, inline_policies
from btruntime.session import Places
from btruntime.training.local import activate_run
from btruntime.training.trainer.config import TrainerConfig
from btruntime.training.trainer.train import train
from hal.clock import VirtualClock
from hal.types import ActionDim, ActionKind, ActionSpec
from policies.manifest import read_run
from skills.episodes import save_episode
from skills.metadata import update_metadata
from skills.playback import EpisodePlayback
from skills.store import SkillEntry, SkillStore

STEPS = 24
DIMS = ("shoulder_vel", "elbow_vel", "claw")
CONFIG = TrainerConfig(
    chunk_size=6,
    batch_size=4,
    max_steps=4,
    image_height=32,
    image_width=32,
    dim_model=16,
    heads=2,
    dim_feedforward=16,
    encoder_layers=1,
    decoder_layers=1,
    vae_encoder_layers=1,
    backbone_width=2,
    checkpoints=1,
    num_workers=0,
    validation_share=0,
    hold_out=(2,),
    device="cpu",
)


@pytest.fixture(scope="module")
def skill(tmp_path_factory: pytest.TempPathFactory) -> SkillEntry:
    """A trained skill whose episodes have their frames in videos; the last one was held out."""
    root = tmp_path_factory.mktemp("skills")
    store = SkillStore(root)
    entry = store.create("swing")
    for seed in range(3):
        save(entry.data_dir, STEPS, video=write_video(root / f"{seed}.mp4", STEPS, b_frames=1), seed=seed)
    train(entry.path, "1", CONFIG)
    activate_run(entry.path, "1")
    update_metadata(entry.path / "metadata.json", execution={"duration": 60.0, "progress_threshold": None})
    return store.get("swing")


def run(skill: SkillEntry, tmp_path: Path, capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, dict, str]:
    words = ["run", "swing", "--robot", f"playback:{skill.data_dir / 'episode_2.h5'}", "--json", "--quiet"]
    places = ["--skills-dir", str(skill.path.parent), "--flights-dir", str(tmp_path / "flights")]
    status = main([*words, *places, *options])
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    lines = out.splitlines()
    return status, json.loads(lines[-1]) if lines else {}, out + err


def test_a_trained_skill_is_compared_with_the_person(
    skill: SkillEntry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert read_run(skill.path / "1").hyperparameters["held_out_episodes"] == ["episode_2.h5"]
    status, found, out = run(skill, tmp_path, capsys, "--fast")
    assert (status, found["outcome"]) == (0, "done"), out
    assert found["reason"] == "episode_2.h5 was played to its end, 2.3 s."
    comparison = found["comparison"]
    assert tuple(comparison["by_dim"]) == DIMS
    assert [dim["unit"] for dim in comparison["by_dim"].values()] == ["rad/s", "rad/s", "1"]
    errors = [dim["error"] / dim["std"] for dim in comparison["by_dim"].values()]
    assert comparison["l1"] == pytest.approx(np.mean(errors))
    # 2.3 s at 25 Hz, but for the first frame and the first forward pass.
    assert 45 <= comparison["ticks"] <= 58
    # Commanding the mean of a swing is nearly one deviation wrong.
    assert 0.5 < comparison["mean_action_l1"] < 1.5
    assert "commanded beside demonstrated" in out
    ticks = read_flight(Path(found["flight"]))
    assert ticks.summary().outcome == "done"
    again = run(skill, tmp_path, capsys, "--fast")[1]
    assert again["comparison"] == comparison


def test_what_moves_to_the_start_is_not_compared(
    skill: SkillEntry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = run(skill, tmp_path, capsys, "--fast")[1]["comparison"]
    update_metadata(skill.path / "metadata.json", execution={"start_pose": [0.3, -0.2]})
    found = run(skill, tmp_path, capsys, "--fast")[1]
    update_metadata(skill.path / "metadata.json", execution={"start_pose": None})
    assert found["outcome"] == "done"
    assert found["comparison"]["ticks"] == before["ticks"]


def test_a_damaged_video_ends_the_run_in_a_sentence(
    skill: SkillEntry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video = skill.data_dir / "episode_2_top.mp4"
    content = video.read_bytes()
    try:
        for wrong in (content[:100], write_video(tmp_path / "small.mp4", STEPS, size=(16, 16)).read_bytes()):
            video.write_bytes(wrong)
            status, _, out = run(skill, tmp_path, capsys, "--fast")
            assert status == 1
            assert "episode_2_top.mp4" in out
    finally:
        video.write_bytes(content)


# What is compared


def replayed(tmp_path: Path, path: Path, source: Path) -> dict:
    """The comparison of commands recorded in `source` with those of `path`."""
    clock, pool = VirtualClock(), PolicyPool(inline_policies())
    robot = EpisodePlayback(path, clock)
    found = replay_episode(source, robot, clock, pool, Places(flights_dir=tmp_path / "flights"), show=False)
    pool.close()
    assert found.ran.result.success, found.ran.result.reason
    assert found.ran.comparison is not None
    return dict(as_json(found.ran.comparison))


def test_the_demonstration_itself_differs_by_its_steps_alone(tmp_path: Path) -> None:
    path = save(tmp_path / "data", STEPS)
    same = replayed(tmp_path, path, path)
    other = replayed(tmp_path, path, save(tmp_path / "data", STEPS, seed=2))
    # Between two steps the replay interpolates, and the person's command is held.
    assert same["l1"] < 0.25 < other["l1"]
    assert same["mean_action_l1"] == pytest.approx(other["mean_action_l1"], rel=0.1)


def test_dimensions_that_nobody_commanded_are_left_out(tmp_path: Path) -> None:
    plain = save(tmp_path / "data", STEPS)
    dims = (*make_header().action.dims, ActionDim(name="progress", kind=ActionKind.PROGRESS, unit="1", low=0, high=1))
    rows = make_rows(STEPS)
    rows["action"] = rows["applied_action"] = np.column_stack([rows["action"], np.linspace(0, 1, STEPS)])
    header = make_header(action=ActionSpec(dims=dims))
    more = save_episode(tmp_path / "data", header, rows, frames={CAMERA: pictures(STEPS)})
    assert tuple(replayed(tmp_path, more, plain)["by_dim"]) == DIMS
    assert tuple(replayed(tmp_path, more, more)["by_dim"]) == (*DIMS, "progress")
