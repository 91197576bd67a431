"""Small skills with real episodes, and hyperparameters that train in a second."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from btruntime.training.trainer.config import TrainerConfig
from hal.types import BaseSpec, CameraSpec, JointSpec, RobotSpec
from skills.episodes import CameraShape, EpisodeHeader, EpisodeStep, EpisodeWriter

RATE_HZ = 10.0

MakeSkill = Callable[..., Path]


def small_robot() -> RobotSpec:
    joints = tuple(
        JointSpec(name=name, low=-2, high=2, max_speed=2, max_acceleration=20, gripper=name == "hand")
        for name in ("pan", "lift", "hand")
    )
    cameras = (
        CameraSpec(name="top", width=48, height=40, rate_hz=RATE_HZ),
        CameraSpec(name="wrist", width=32, height=32, rate_hz=RATE_HZ),
    )
    base = BaseSpec(max_linear_mps=1, max_angular_radps=1, max_linear_mps2=1, max_angular_radps2=1)
    return RobotSpec(name="small", joints=joints, cameras=cameras, base=base, control_rate_hz=50, state_rate_hz=50)


def record(data_dir: Path, *, length: int, seed: int, image_age_s: float = 0.0, cameras: bool = True) -> Path:
    """One episode in which a bright square in `top` shows where `pan` is to go. Joint `lift` never moves."""
    robot, rng = small_robot(), np.random.default_rng(seed)
    header = EpisodeHeader(
        robot=robot.name,
        data_frequency_hz=RATE_HZ,
        joint_names=robot.joint_names,
        action=robot.action_spec(base=True, progress=True),
        cameras=tuple(CameraShape(c.name, c.height, c.width) for c in robot.cameras) if cameras else (),
        has_base=True,
        software="test",
        start_utc=datetime(2026, 1, 2, tzinfo=UTC),
    )
    goal = rng.uniform(-1, 1)
    writer = EpisodeWriter(data_dir, header)
    for step in range(length):
        at = goal * step / max(length - 1, 1)
        action = np.array([at + goal / length, 0.5, float(step % 3), 0.1, 0.0, 0.0, 0.0])
        top = rng.integers(0, 40, size=(40, 48, 3)).astype(np.uint8)
        column = int((goal + 1) / 2 * 40)
        top[10:20, column : column + 8] = (250, 20, 20)
        frames = {"top": top, "wrist": np.full((32, 32, 3), step * 3 % 256, dtype=np.uint8)} if cameras else {}
        writer.append(
            EpisodeStep(
                action=action,
                applied_action=action,
                qpos=np.array([at, 0.5, float(step % 3)]),
                qvel=np.zeros(3),
                images=frames,
                stale=dict.fromkeys(frames, False),
                image_s={name: step / RATE_HZ - (image_age_s if name == "top" else 0.0) for name in frames},
                step_s=step / RATE_HZ,
                arm_s=step / RATE_HZ,
                cmd_vel=np.zeros(2),
                odom=np.zeros(5),
            )
        )
    return writer.finalize()


@pytest.fixture
def make_skill(tmp_path: Path) -> MakeSkill:
    """Makes a skill with some episodes: `make_skill(episodes=4, length=12, ...)`."""

    def make(*, episodes: int = 4, length: int = 12, **options: Any) -> Path:
        skill = tmp_path / "press-button"
        (skill / "data").mkdir(parents=True, exist_ok=True)
        for seed in range(episodes):
            record(skill / "data", length=length + seed, seed=seed, **options)
        return skill

    return make


@pytest.fixture
def tiny() -> TrainerConfig:
    return TrainerConfig(
        chunk_size=6,
        batch_size=4,
        max_steps=6,
        learning_rate=1e-3,
        learning_rate_backbone=1e-3,
        ema_decay=0.5,
        image_height=32,
        image_width=32,
        dim_model=16,
        heads=2,
        dim_feedforward=16,
        encoder_layers=1,
        decoder_layers=1,
        vae_encoder_layers=1,
        backbone_width=2,
        checkpoints=2,
        log_every=2,
        num_workers=0,
        validation_share=0.25,
        device="cpu",
    )


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
