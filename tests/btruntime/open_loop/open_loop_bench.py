"""A learned skill whose recorded actions are written by hand, and runs of it with weights that nobody trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hal.types import CameraSpec, JointSpec, RobotSpec
from policies.act.config import ACTConfig
from policies.act.model import ACTNetwork
from policies.checkpoint import RunNotes, save
from policies.normalize import MeanStd, Statistics
from policies.spec import CameraInput, InputSpec
from skills.episodes import CameraShape, EpisodeHeader, EpisodeStep, EpisodeWriter
from skills.metadata import activate
from skills.store import SkillStore

SKILL = "press"
RATE_HZ = 10.0
CHUNK = 6
SIDE = 32
STD = (2.0, 10.0)
JOINTS = ("pan", "lift")

ACTIONS: Sequence[Sequence[tuple[float, float]]] = (
    [(0, 0), (2, 10), (4, 20)],
    [(2, 2), (6, 10)],
    [(1, 1), (3, 1), (5, 1), (7, 1)],
)
"""Of `episode_0.h5` to `episode_2.h5`."""

TRAINING = ("episode_0.h5", "episode_1.h5")
HELD_OUT = "episode_2.h5"
HYPERPARAMETERS = {"training_episodes": TRAINING, "held_out_episodes": (HELD_OUT,), "validation_episodes": ()}


def record(
    data_dir: Path, actions: Sequence[Sequence[float]], *, frame_age_s: float = 0.0, seed: int | None = None
) -> Path:
    """One episode. Its single camera, 8 pixels wide and 6 high, shows noise."""
    joints = tuple(
        JointSpec(name=name, low=-100, high=100, max_speed=2, max_acceleration=20, gripper=False) for name in JOINTS
    )
    camera = CameraSpec(name="top", width=8, height=6, rate_hz=RATE_HZ)
    robot = RobotSpec(name="tiny", joints=joints, cameras=(camera,), control_rate_hz=50, state_rate_hz=50)
    header = EpisodeHeader(
        robot=robot.name,
        data_frequency_hz=RATE_HZ,
        joint_names=robot.joint_names,
        action=robot.action_spec(base=False, progress=False),
        cameras=(CameraShape(camera.name, camera.height, camera.width),),
        has_base=False,
        software="test",
        start_utc=datetime(2026, 1, 2, tzinfo=UTC),
        scene_seed=seed,
    )
    writer, rng = EpisodeWriter(data_dir, header), np.random.default_rng(len(actions))
    for step, action in enumerate(actions):
        step_s = step / RATE_HZ
        writer.append(
            EpisodeStep(
                action=np.array(action, dtype=np.float64),
                applied_action=np.array(action, dtype=np.float64),
                qpos=np.array(action, dtype=np.float64) / 2,
                qvel=np.zeros(2),
                images={"top": rng.integers(0, 255, size=(6, 8, 3)).astype(np.uint8)},
                stale={"top": False},
                image_s={"top": step_s - frame_age_s},
                step_s=step_s,
                arm_s=step_s,
            )
        )
    return writer.finalize()


def make_skill(skills_dir: Path, *, frame_age_s: float = 0.0, seed: int | None = None) -> Path:
    """A skill with the three episodes and no run."""
    entry = SkillStore(skills_dir).create(SKILL)
    entry.data_dir.mkdir(exist_ok=True)
    for actions in ACTIONS:
        record(entry.data_dir, actions, frame_age_s=frame_age_s, seed=seed)
    return entry.path


def add_run(
    skill_dir: Path,
    run_id: str = "1",
    hyperparameters: Mapping[str, Any] = HYPERPARAMETERS,
    *,
    active: bool = True,
    **spec_changes: Any,
) -> Path:
    """A checkpoint with random weights; the statistics of its actions have mean 1 and the deviations `STD`."""
    dims = [{"name": name, "kind": "joint_position", "unit": "rad", "target": name} for name in JOINTS]
    values: dict[str, Any] = {
        "cameras": (CameraInput(name="top", height=SIDE, width=SIDE),),
        "joint_names": JOINTS,
        "action": tuple(dims),
        "data_frequency_hz": RATE_HZ,
        "chunk_size": CHUNK,
        "robot": "tiny",
    }
    spec = InputSpec(**(values | spec_changes))
    config = ACTConfig(
        chunk_size=spec.chunk_size,
        state_dim=spec.state_dim,
        action_dim=spec.action_dim,
        cameras=spec.camera_names,
        dim_model=16,
        heads=2,
        dim_feedforward=16,
        encoder_layers=1,
        decoder_layers=1,
        vae_encoder_layers=1,
        backbone_width=2,
    )
    picture = MeanStd(np.full((3, 1, 1), 0.5), np.full((3, 1, 1), 0.25))
    statistics = Statistics(
        MeanStd(np.zeros(2), np.ones(2)),
        MeanStd(np.ones(2), np.array(STD)),
        dict.fromkeys(spec.camera_names, picture),
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = ACTNetwork(config)
    network.set_statistics(statistics)
    (skill_dir / run_id).mkdir()
    path = save(skill_dir / run_id, 5, network.state_dict(), statistics, spec, config, RunNotes(dict(hyperparameters)))
    if active:
        activate(skill_dir, run_id, path.name, "dataset_stats.pt")
    return path
