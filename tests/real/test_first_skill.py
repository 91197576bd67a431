"""The path of docs/first-skill.md on real recordings: import, a short training, evaluation, a run on a playback."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from btruntime.cli import main

CR5 = Path(__file__).parents[3] / "shared" / "data" / "cr5_dobot"
MARS = CR5.parent / "mars_h264"
SHORT = [
    *("max_steps=400", "batch_size=8", "image_height=48", "image_width=64", "dim_model=32", "heads=2"),
    *("dim_feedforward=64", "backbone_width=8", "checkpoints=1", "validation_share=0", "threads=1"),
    *("learning_rate=2e-3", "learning_rate_backbone=2e-3", "dropout=0", "ema_decay=0.98"),
]
pytestmark = pytest.mark.slow


def done(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, object]:
    """The JSON of a command that must succeed."""
    assert main([*words, "--json"]) == 0, capsys.readouterr().err
    return dict(json.loads(capsys.readouterr().out.splitlines()[-1]))


@pytest.mark.skipif(not CR5.is_dir(), reason="the real LeRobot dataset is not here")
def test_from_a_lerobot_dataset_to_a_policy_that_runs(tmp_path, capsys):
    skills = ("--skills-dir", str(tmp_path))
    imported = done(capsys, "dataset", "import", str(CR5), "--skill", "put-banana", "--episodes", "8,11,12,20", *skills)
    assert [episode["file"] for episode in imported["episodes"]] == [f"episode_{n}.h5" for n in (8, 11, 12, 20)]

    options = [word for setting in SHORT for word in ("--set", setting)]
    trained = done(capsys, "train", "run", "put-banana", "--preset", "cpu", "--hold-out", "20", *options, *skills)
    assert trained["estimated_s"] > 0

    judged = done(capsys, "evaluate", "put-banana", *skills)
    assert judged["episodes"] == ["episode_20.h5"]
    assert judged["training_episodes"] == ["episode_8.h5", "episode_11.h5", "episode_12.h5"]
    # Minutes are needed to learn the task; seconds are enough to do better than without looking at all.
    assert 0 < judged["open_loop_l1"] < judged["baseline_mean_l1"]
    assert Path(judged["plot"]).read_bytes().startswith(b"\x89PNG")

    recording = tmp_path / "put-banana" / "data" / "episode_20.h5"
    flights = ("--flights-dir", str(tmp_path / "flights"))
    ran = done(capsys, "run", "put-banana", "--robot", f"playback:{recording}", "--fast", "--quiet", *flights, *skills)
    assert ran["outcome"] == "done"
    assert ran["comparison"]["ticks"] > 450
    assert set(ran["comparison"]["by_dim"]) == {*(f"joint_{n}_vel" for n in range(6)), "gripper"}


@pytest.mark.skipif(not MARS.is_dir(), reason="the real recordings of the reference robot are not here")
def test_a_recording_of_another_arm_is_replayed_through_the_motion_gate(tmp_path, capsys):
    skills = ("--skills-dir", str(tmp_path))
    imported = done(capsys, "dataset", "import", str(MARS), "--skill", "fold-cloth", *skills)
    assert (len(imported["episodes"]), imported["missing"]) == (2, [2, 3, 4, 5])

    replay = ("dataset", "replay", "fold-cloth", "0", "--fast", "--quiet", "--flights-dir", str(tmp_path / "flights"))
    assert main([*replay, *skills]) == 1
    assert "--clip" in capsys.readouterr().err

    replayed = done(capsys, *replay, "--clip", *skills)
    assert replayed["outcome"] == "done"
    assert set(replayed["cut"]) == {"joint2", "joint6"}
    assert 0 < replayed["tracking_error_rad"] < 0.05
