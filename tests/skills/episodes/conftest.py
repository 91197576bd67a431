"""A small robot's episodes: 2 joints, a base, two cameras of different sizes, one of them named to sort last first."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from hal.types import ActionDim, ActionKind, ActionSpec
from skills.episodes import CameraShape, EpisodeHeader, EpisodeStep, EpisodeWriter

START = datetime(2026, 3, 4, 5, 6, 7, 890_000, tzinfo=UTC)
END = datetime(2026, 3, 4, 5, 6, 9, tzinfo=UTC)


@pytest.fixture
def header() -> EpisodeHeader:
    dims = [
        ActionDim(name="shoulder", kind=ActionKind.JOINT_POSITION, unit="rad", target="shoulder", low=-2, high=2),
        ActionDim(name="jaw", kind=ActionKind.GRIPPER, unit="rad", target="jaw"),
        ActionDim.base("linear", 0.5),
        ActionDim.base("angular", 1.0),
        ActionDim(name="progress", kind=ActionKind.PROGRESS, unit="1", low=0, high=1),
        ActionDim(name="termination", kind=ActionKind.TERMINATION, unit="1", low=0, high=1),
    ]
    return EpisodeHeader(
        robot="two-joints",
        data_frequency_hz=30.0,
        joint_names=("shoulder", "jaw"),
        action=ActionSpec(dims=tuple(dims)),
        cameras=(CameraShape("main_camera", 6, 8), CameraShape("arm_camera", 4, 4)),
        has_base=True,
        source="teleop",
        software="test 1",
        start_utc=START,
    )


def step_of(header: EpisodeHeader, index: int) -> EpisodeStep:
    """A step that is different from every other and can be told from its index."""
    actions, joints = header.action.size, len(header.joint_names)
    action = np.concatenate([np.full(actions - 2, index / 10), [0, 0]])
    time_s = index / header.data_frequency_hz
    return EpisodeStep(
        action=action,
        applied_action=action * 0.5,
        qpos=np.full(joints, index + 0.25),
        qvel=np.full(joints, -1.0 * index),
        images={c.name: np.full((c.height, c.width, 3), (index, 7, n), np.uint8) for n, c in enumerate(header.cameras)},
        stale={c.name: index % 2 == n for n, c in enumerate(header.cameras)},
        step_s=time_s,
        arm_s=time_s - 0.001,
        image_s={c.name: time_s - 0.01 * (n + 1) for n, c in enumerate(header.cameras)},
        cmd_vel=np.array([0.1, index]) if header.has_base else None,
        odom=np.array([index, 0, 0, 0.1, index]) if header.has_base else None,
    )


@pytest.fixture
def step(header: EpisodeHeader) -> Callable[[int], EpisodeStep]:
    return lambda index: step_of(header, index)


@pytest.fixture
def new_writer(tmp_path: Path, header: EpisodeHeader) -> Callable[..., EpisodeWriter]:
    """A writer whose flush interval never passes, so that only the count of steps flushes."""

    def new(**options: object) -> EpisodeWriter:
        settings = {"header": header, "now": lambda: 0.0, "utc_now": lambda: END, "min_free_bytes": 0} | options
        return EpisodeWriter(tmp_path / "data", **settings)  # type: ignore[arg-type]

    return new


@pytest.fixture
def record(new_writer: Callable[..., EpisodeWriter], step: Callable[[int], EpisodeStep]) -> Callable[..., Path]:
    """Record an episode of so many steps."""

    def recorded(steps: int = 20, **finalize: object) -> Path:
        writer = new_writer()
        for index in range(steps):
            writer.append(step(index))
        return writer.finalize(**finalize)  # type: ignore[arg-type]

    return recorded
