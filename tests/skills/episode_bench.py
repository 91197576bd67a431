"""Episodes of an arm that is moved by joint velocities, with a gripper that nobody measures, a camera and no base."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from hal.types import ActionDim, ActionKind, ActionSpec
from skills.episodes import CameraShape, EpisodeHeader, save_episode

HEIGHT, WIDTH, RATE_HZ = 32, 48, 10.0
JOINTS = ("shoulder", "elbow")
CAMERA = "top"
START = datetime(2026, 3, 4, 5, 6, 7, 890_000, tzinfo=UTC)


def make_header(**changes: Any) -> EpisodeHeader:
    dims = [
        ActionDim(name=f"{joint}_vel", kind=ActionKind.JOINT_VELOCITY, unit="rad/s", target=joint) for joint in JOINTS
    ]
    values: dict[str, Any] = {
        "robot": "two-joints",
        "data_frequency_hz": RATE_HZ,
        "joint_names": JOINTS,
        "action": ActionSpec(dims=(*dims, ActionDim.fraction("claw"))),
        "cameras": (CameraShape(CAMERA, HEIGHT, WIDTH),),
        "source": "import",
        "software": "test 1",
        "start_utc": START,
    }
    return EpisodeHeader(**(values | changes))


def make_rows(
    steps: int = 12, *, times_s: np.ndarray | None = None, frame_age_s: float = 0.03, seed: int = 0
) -> dict[str, np.ndarray]:
    """Joints that swing, and the velocities that make them."""
    at_s = np.arange(steps) / RATE_HZ if times_s is None else times_s
    phase = at_s[:, None] * 2 + np.arange(2) + seed
    action = np.column_stack([0.6 * np.cos(phase), (np.sin(at_s * 3) > 0).astype(float)])
    return {
        "action": action,
        "applied_action": action,
        "qpos": 0.3 * np.sin(phase),
        "qvel": 0.6 * np.cos(phase),
        "timestamps/step": at_s,
        "timestamps/arm": at_s - 0.01,
        f"timestamps/images/{CAMERA}": at_s - frame_age_s,
        f"stale/{CAMERA}": np.zeros(steps, dtype=bool),
    }


def pictures(steps: int, height: int = HEIGHT, width: int = WIDTH) -> Iterable[np.ndarray]:
    """Frames that differ: a bright bar walks to the right."""
    for step in range(steps):
        picture = np.full((height, width, 3), (step * 5 % 256, 40, 80), np.uint8)
        picture[:, step * 3 % width : step * 3 % width + 6] = 255
        yield picture


def write_video(
    path: Path,
    steps: int,
    *,
    size: tuple[int, int] = (HEIGHT, WIDTH),
    codec: str = "mpeg4",
    options: Mapping[str, str] | None = None,
    key_every: int = 12,
    b_frames: int = 0,
    container_format: str = "mp4",
) -> Path:
    """An mp4 of `pictures`."""
    with av.open(str(path), "w", format=container_format) as container:
        stream = container.add_stream(codec, rate=int(RATE_HZ), options=dict(options or {}))
        stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
        stream.codec_context.gop_size, stream.codec_context.max_b_frames = key_every, b_frames
        for number, picture in enumerate(pictures(steps, *size)):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, int(RATE_HZ))
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def save(data_dir: Path, steps: int = 12, *, video: Path | None = None, number: int | None = None, **rows: Any) -> Path:
    """An episode; its frames are in the file, or in a copy of the video."""
    return save_episode(
        data_dir,
        make_header(),
        make_rows(steps, **rows),
        frames={} if video else {CAMERA: pictures(steps)},
        videos={CAMERA: video} if video else {},
        number=number,
    )
