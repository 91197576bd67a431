"""Small made-up datasets of other programs: 2 joints, a gripper, one small camera."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import av
import cv2
import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

HEIGHT, WIDTH, FPS = 16, 24, 10
EPOCH_S = 1_760_000_000.0


def write_video(path: Path, frames: int, size: tuple[int, int] = (HEIGHT, WIDTH)) -> None:
    """An mp4 whose frames differ; red is strong, blue is absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=FPS)
        stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
        for index in range(frames):
            picture = np.full((*size, 3), (200, 10 * index % 200, 0), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))


def jittered(steps: int, rate_hz: float = FPS) -> np.ndarray:
    """(T,) times that are not exactly regular, from 0.05 s on."""
    return 0.05 + np.arange(steps) / rate_hz + 0.004 * np.sin(np.arange(steps))


class LeRobot:
    """A LeRobot v2.1 dataset to be written, part by part, so that a test can change each part."""

    def __init__(self, root: Path):
        self.root = root
        self.state_names: object = ["shoulder", "elbow"]
        self.action_names: object = ["shoulder_vel", "elbow_vel", "gripper"]
        self.info: dict[str, object] = {
            "codebase_version": "v2.1",
            "robot_type": "two joints",
            "fps": FPS,
            "chunks_size": 2,
            "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
            "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
            "unknown": {"to": "us"},
        }
        self.camera: str | None = "video"
        self.extra_features: dict[str, object] = {}
        self.extra_columns: dict[str, object] = {}
        self.states: dict[int, np.ndarray] = {}
        self.actions: dict[int, np.ndarray] = {}
        self.times: dict[int, np.ndarray] = {}

    def add(self, number: int = 0, steps: int = 12, state_width: int = 2, action_width: int = 3) -> LeRobot:
        """An episode that moves evenly: joint j at 0.1 t + j, all actions within 0..1."""
        self.times[number] = jittered(steps)
        self.states[number] = np.add.outer(0.1 * (self.times[number] - 0.05), np.arange(state_width))
        self.actions[number] = np.tile(np.linspace(0, 1, steps)[:, None], (1, action_width))
        return self

    def write(self) -> Path:
        """Write everything; returns the root."""
        state, action = next(iter(self.states.values())), next(iter(self.actions.values()))
        features: dict[str, object] = {
            "observation.state": {"dtype": "float32", "shape": [state.shape[1]], "names": self.state_names},
            "action": {"dtype": "float32", "shape": [action.shape[1]], "names": self.action_names},
            "timestamp": {"dtype": "float32", "shape": [1], "names": None},
        }
        if self.camera:
            names = ["height", "width", "channel"]
            shape = [HEIGHT, WIDTH, 3]
            features["observation.images.top"] = {"dtype": self.camera, "shape": shape, "names": names}
        (self.root / "meta").mkdir(parents=True)
        self.write_json("meta/info.json", {"features": features | self.extra_features} | self.info)
        self.write_lines("meta/tasks.jsonl", [{"task_index": 0, "task": "pick up the cup"}])
        lines = [{"episode_index": n, "tasks": ["pick up the cup"], "length": len(t)} for n, t in self.times.items()]
        self.write_lines("meta/episodes.jsonl", lines)
        for number in self.times:
            self.write_episode(number)
        return self.root

    def table_path(self, number: int) -> Path:
        return self.root / f"data/chunk-{number // 2:03d}/episode_{number:06d}.parquet"

    def video_path(self, number: int) -> Path:
        return self.root / f"videos/chunk-{number // 2:03d}/observation.images.top/episode_{number:06d}.mp4"

    def write_episode(self, number: int) -> None:
        path, steps = self.table_path(number), len(self.times[number])
        path.parent.mkdir(parents=True, exist_ok=True)
        columns: dict[str, object] = {
            "observation.state": _fixed(self.states[number]),
            "action": _fixed(self.actions[number]),
            "timestamp": pa.array(self.times[number].astype(np.float32)),
        }
        if self.camera == "image":
            cells = [{"bytes": png((index, 100, 200)), "path": None} for index in range(steps)]
            columns["observation.images.top"] = pa.array(
                cells, pa.struct([("bytes", pa.binary()), ("path", pa.string())])
            )
        pq.write_table(pa.table(columns | self.extra_columns), path)
        if self.camera == "video":
            write_video(self.video_path(number), steps)

    def write_json(self, name: str, document: object) -> None:
        (self.root / name).write_text(json.dumps(document))

    def write_lines(self, name: str, documents: Sequence[object]) -> None:
        (self.root / name).write_text("".join(json.dumps(each) + "\n" for each in documents))


def png(rgb: tuple[int, int, int], size: tuple[int, int] = (HEIGHT, WIDTH)) -> bytes:
    """A picture of one colour."""
    picture = np.full((*size, 3), rgb[::-1], np.uint8)
    return bytes(cv2.imencode(".png", picture)[1])


def _fixed(values: np.ndarray) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(values.astype(np.float32).ravel()), values.shape[1])


class Reference:
    """A dataset of the reference robot to be written: 3 joints, recorder layout."""

    def __init__(self, root: Path):
        self.root, self.data = root, root / "data"
        self.data.mkdir(parents=True)
        self.entries: list[dict[str, object]] = []

    def episode(
        self,
        number: int = 0,
        *,
        steps: int = 30,
        rate_hz: float = FPS,
        width: int = 7,
        qvel_factor: float | None = 1.0,
        documented: bool = False,
        images: bool = True,
        times: bool = True,
        start_s: float = EPOCH_S,
    ) -> Path:
        """An episode whose joints swing; `qvel` is so many times too small."""
        path = self.data / f"episode_{number}.h5"
        times_s = start_s + jittered(steps, rate_hz)
        elapsed_s = times_s - times_s[0]
        qpos = np.sin(elapsed_s[:, None] + np.arange(3))
        group = "" if documented else "observations/"
        names = ("main_camera", "arm_camera") if documented else ("camera_1", "camera_2")
        with h5py.File(path, "w") as file:
            file["action"] = np.tile(np.linspace(0, 1, steps)[:, None], (1, width))
            file[f"{group}qpos"] = qpos
            if qvel_factor is not None:
                file[f"{group}qvel"] = np.cos(elapsed_s[:, None] + np.arange(3)) / qvel_factor
            if times:
                file["timestamps/arm"] = times_s
            for index, name in enumerate(names):
                if times:
                    file[f"timestamps/images/{name}"] = times_s - 0.01
                if images:
                    file[f"{group}images/{name}"] = np.full((steps, 4, 6, 3), (10, 20, 30 + index), np.uint8)
                else:
                    write_video(self.data / f"episode_{number}_{name}.mp4", steps)
        self.entries.append({"episode_id": number, "file_name": path.name, "start_timestamp": "2026-04-16T11:00:00"})
        if not images:
            self.entries[-1]["video_files"] = [f"episode_{number}_{name}.mp4" for name in names]
        return path

    def index(self, **changes: object) -> Path:
        """Write the index; returns the root."""
        document = {"data_frequency": 10.0, "dataset_type": "h5", "episodes": self.entries} | changes
        (self.data / "dataset_metadata.json").write_text(json.dumps(document))
        return self.root


@pytest.fixture
def lerobot(tmp_path: Path) -> LeRobot:
    return LeRobot(tmp_path / "cups")


@pytest.fixture
def reference(tmp_path: Path) -> Reference:
    return Reference(tmp_path / "fold-cloth")


@pytest.fixture
def make_video() -> Callable[..., None]:
    return write_video
