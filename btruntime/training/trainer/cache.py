"""The prepared cache: frames decoded and resized once, memory-mapped, so that training never waits for a decoder.

`<skill>/.cache/<key>/` holds `<camera>.npy` (N, H, W, 3) uint8, `steps.npz` and `cache.json`. The key is a hash of
all that went into it, so other data or another size means another directory. It appears whole or not at all.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from btruntime.training.trainer.events import Note, Preparing, Report
from foundation.errors import BtruntimeError
from foundation.files import fsync_dir, write_atomic
from hal.types import ActionDim
from policies.preprocess import resize
from policies.spec import CameraInput, InputSpec
from skills.episodes import Episode, EpisodeError, EpisodeHeader, EpisodeSummary, list_episodes
from skills.locks import locked

CACHE_DIR = ".cache"
_FORMAT = 1
_BUILDING = ".building-"
_SPARE_BYTES = 256 << 20
_KEPT = 3

Frames = NDArray[np.uint8]
Rows = NDArray[np.float32]


class DataError(BtruntimeError):
    """The episodes of a skill cannot be trained on."""


class DiskSpaceError(BtruntimeError):
    """The cache, or a run, does not fit on the disk."""


class CachedEpisode(BaseModel):
    """One episode in the cache; `identity` changes when its content does."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    identity: str
    length: Annotated[int, Field(ge=1)]


class CacheContent(BaseModel):
    """`cache.json`: what the arrays hold. Cameras and sizes are those of `input_spec`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str
    episodes: tuple[CachedEpisode, ...]
    input_spec: InputSpec


@dataclass(frozen=True, slots=True)
class Cache:
    """All usable episodes of a skill, one after the other: N steps.

    Attributes:
        frames: by camera, (N, H, W, 3) uint8 RGB, memory-mapped.
        state: (N, S) float32.
        action: (N, A) float32.
        origin: (N,) float32; at which row of its own episode, as a fraction, the oldest frame of a step was
            captured. Where a chunk made from this step begins, in training as in running.
    """

    content: CacheContent
    frames: dict[str, Frames]
    state: Rows
    action: Rows
    origin: Rows

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(E,) steps of each episode."""
        return np.array([episode.length for episode in self.content.episodes], dtype=np.int64)

    @property
    def starts(self) -> NDArray[np.int64]:
        """(E,) first step of each episode."""
        return np.asarray(np.cumsum(self.lengths) - self.lengths)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(episode.name for episode in self.content.episodes)


def usable_episodes(
    data_dir: Path, report: Report, *, successes_only: bool = False, skip_broken: bool = False
) -> list[EpisodeSummary]:
    """The episodes that training takes, in order; who is left out, and why, is reported.

    Raises:
        DataError: there is none, or a broken one is not to be skipped.
    """
    found = [episode for episode in list_episodes(data_dir) if not episode.trash]
    broken = [episode for episode in found if episode.problem is not None]
    if broken and not skip_broken:
        raise DataError(
            f"{len(broken)} of {len(found)} episodes cannot be read: {'; '.join(str(e.problem) for e in broken)} "
            f"Move their files out of {data_dir}, or train without them (--skip-broken)."
        )
    for episode in broken:
        report(Note(f"without {episode.file_name}: {episode.problem}"))
    usable = [episode for episode in found if episode.problem is None]
    if successes_only:
        failures = [episode.file_name for episode in usable if episode.outcome == "failure"]
        usable = [episode for episode in usable if episode.outcome != "failure"]
        report(Note(f"without the {len(failures)} episodes that are labelled as a failure"))
    if not usable:
        raise DataError(f"{data_dir} holds no episode to train on. Record some demonstrations first.")
    return usable


def open_cache(
    skill_dir: Path,
    report: Report,
    *,
    chunk_size: int,
    height: int,
    width: int,
    successes_only: bool = False,
    skip_broken: bool = False,
) -> Cache:
    """The cache of a skill's episodes at that image size; built if it is not there.

    Blocks while another process builds one for the same skill.

    Raises:
        DataError: no usable episode, or episodes that do not fit each other.
        DiskSpaceError: it does not fit on the disk.
    """
    data_dir, root = skill_dir / "data", skill_dir / CACHE_DIR
    episodes = usable_episodes(data_dir, report, successes_only=successes_only, skip_broken=skip_broken)
    key = _key(episodes, height, width)
    directory = root / key
    if not directory.is_dir():
        root.mkdir(exist_ok=True)
        with locked(root / ".lock"):
            if not directory.is_dir():
                _build(directory, data_dir, episodes, height, width, report)
    cache = _opened(directory)
    spec = cache.content.input_spec.model_copy(update={"chunk_size": chunk_size})
    content = cache.content.model_copy(update={"input_spec": spec})
    return Cache(content, cache.frames, cache.state, cache.action, cache.origin)


def _key(episodes: Sequence[EpisodeSummary], height: int, width: int) -> str:
    """Hash of all that decides the content."""
    parts = [f"format {_FORMAT}, {height}x{width} area", *(f"{e.file_name} {_identity(e)}" for e in episodes)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _identity(episode: EpisodeSummary) -> str:
    return episode.sha256 or f"{episode.size_bytes}-{episode.mtime_ns}"


def _build(
    directory: Path, data_dir: Path, episodes: Sequence[EpisodeSummary], height: int, width: int, report: Report
) -> None:
    """Build under a hidden name, then rename. The caller holds the lock, so older attempts are leftovers."""
    for leftover in directory.parent.glob(f"{_BUILDING}*"):
        shutil.rmtree(leftover)
    headers = [_header(data_dir / episode.file_name) for episode in episodes]
    _check_alike(headers, episodes)
    spec = _input_spec(headers[0], height, width)
    lengths = [episode.length for episode in episodes]
    frame_bytes = sum(lengths) * height * width * 3 * len(spec.cameras)
    _check_space(directory.parent, frame_bytes)
    building = directory.with_name(_BUILDING + directory.name)
    try:
        building.mkdir()
        _write_arrays(building, data_dir, episodes, spec, report)
        cached = tuple(CachedEpisode(name=e.file_name, identity=_identity(e), length=e.length) for e in episodes)
        content = CacheContent(key=directory.name, episodes=cached, input_spec=spec)
        write_atomic(building / "cache.json", content.model_dump_json(indent=2).encode())
        building.rename(directory)
    except BaseException as error:
        shutil.rmtree(building, ignore_errors=True)
        if isinstance(error, OSError):
            raise DiskSpaceError(
                f"{directory} cannot be written ({error.strerror or error}). Is the disk full? Free some space, and "
                "train again."
            ) from error
        raise
    fsync_dir(directory.parent)
    _forget_old(directory)


def _header(path: Path) -> EpisodeHeader:
    try:
        with Episode(path) as episode:
            return episode.header
    except EpisodeError as error:
        raise DataError(str(error)) from error


def _check_alike(headers: Sequence[EpisodeHeader], episodes: Sequence[EpisodeSummary]) -> None:
    """Refuse episodes that are not of one kind; frames may differ in size, since they are resized."""

    def kind(header: EpisodeHeader) -> dict[str, object]:
        return {
            "cameras": tuple(sorted(header.camera_names)),
            "joints": header.joint_names,
            "action": tuple(_described(dim) for dim in header.action.dims),
            "data_frequency": header.data_frequency_hz,
        }

    first = kind(headers[0])
    for header, episode in zip(headers, episodes, strict=True):
        for what, value in kind(header).items():
            if value != first[what]:
                raise DataError(
                    f"{episode.file_name}: {what} is {value}, expected {first[what]} as in {episodes[0].file_name}. "
                    f"Train them as separate skills: move one kind to the data/ of another."
                )


def _described(dim: ActionDim) -> str:
    """All that a dimension says of itself, in words that two files can be compared by."""
    limits = "" if dim.low is None and dim.high is None else f", {dim.low} to {dim.high}"
    return f"{dim.name} ({dim.kind} of {dim.target} in {dim.unit}{limits})"


def _input_spec(header: EpisodeHeader, height: int, width: int) -> InputSpec:
    return InputSpec(
        cameras=tuple(CameraInput(name=name, height=height, width=width) for name in header.camera_names),
        joint_names=header.joint_names,
        action=tuple(dim.model_dump(mode="json") for dim in header.action.dims),
        data_frequency_hz=header.data_frequency_hz,
        chunk_size=1,  # the run decides; the cache is the same for all
        robot=header.robot,
    )


def _check_space(directory: Path, needed: int) -> None:
    free = shutil.disk_usage(directory).free
    if free < needed + _SPARE_BYTES:
        raise DiskSpaceError(
            f"{directory}: {free >> 20} MiB free, the prepared frames need {needed >> 20} MiB and some to spare. "
            f"Free some space, or train with smaller images."
        )


def _write_arrays(
    building: Path, data_dir: Path, episodes: Sequence[EpisodeSummary], spec: InputSpec, report: Report
) -> None:
    total = sum(episode.length for episode in episodes)
    maps = {
        camera.name: np.lib.format.open_memmap(
            building / f"{camera.name}.npy", mode="w+", dtype=np.uint8, shape=(total, camera.height, camera.width, 3)
        )
        for camera in spec.cameras
    }
    for camera in spec.cameras:
        _reserve(building / f"{camera.name}.npy")
    state, action, origin, at = [], [], [], 0
    for done, summary in enumerate(episodes):
        report(Preparing(done, len(episodes)))
        try:
            with closing(Episode(data_dir / summary.file_name)) as episode:
                if len(episode) != summary.length:
                    raise DataError(
                        f"{summary.file_name} has {len(episode)} steps, its index {summary.length}. "
                        f'Run "btruntime dataset check" on the skill; it rebuilds the index.'
                    )
                for camera in spec.cameras:
                    for step, frame in enumerate(episode.frames(camera.name), start=at):
                        maps[camera.name][step] = resize(frame, camera.height, camera.width)
                state.append(_finite(episode.qpos, "qpos", summary))
                action.append(_finite(episode.action, "action", summary))
                origin.append(capture_rows(episode))
        except EpisodeError as error:
            raise DataError(str(error)) from error
        at += summary.length
    for frames in maps.values():
        frames.flush()
    np.savez(
        building / "steps.npz",
        state=np.concatenate(state),
        action=np.concatenate(action),
        origin=np.concatenate(origin),
    )
    report(Preparing(len(episodes), len(episodes)))


def _reserve(path: Path) -> None:
    """Take all of a file's space now: a page that the disk has no room for would kill the process."""
    with path.open("r+b") as file:
        os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)


def _finite(values: NDArray[np.float64], what: str, episode: EpisodeSummary) -> Rows:
    rows = values.astype(np.float32)
    if not np.isfinite(rows).all():
        step = int(np.argwhere(~np.isfinite(rows))[0][0])
        raise DataError(f"{episode.file_name}: {what} of step {step} is not finite. Move the file out of data/.")
    return rows


def capture_rows(episode: Episode) -> Rows:
    """(T,) at which row, as a fraction, the oldest frame of each step was captured.

    Frames are older than the step that stores them. A policy's chunk starts when the oldest frame was captured, so
    the actions to learn start there too; otherwise a robot that runs the chunk is ahead of the demonstration.
    Without cameras it is when the joints were measured.
    """
    steps_s = episode.step_s
    times = [episode.image_s(camera) for camera in episode.camera_names] or [episode.arm_s]
    captured_s = np.minimum(np.min(times, axis=0), steps_s)
    rows = np.interp(captured_s, steps_s, np.arange(len(steps_s)))
    before = (captured_s - steps_s[0]) * episode.header.data_frequency_hz
    origin: Rows = np.where(captured_s < steps_s[0], before, rows).astype(np.float32)
    return origin


def _opened(directory: Path) -> Cache:
    directory.touch()
    content = CacheContent.model_validate_json((directory / "cache.json").read_bytes())
    with np.load(directory / "steps.npz", allow_pickle=False) as steps:
        state, action, origin = steps["state"], steps["action"], steps["origin"]
    frames = {name: np.load(directory / f"{name}.npy", mmap_mode="r") for name in content.input_spec.camera_names}
    return Cache(content, frames, state, action, origin)


def _forget_old(newest: Path) -> None:
    """Keep the last few caches; each can be made again."""
    for old in sorted(_caches(newest.parent), key=lambda path: path.stat().st_mtime_ns, reverse=True)[_KEPT:]:
        if old != newest:
            shutil.rmtree(old, ignore_errors=True)


def _caches(root: Path) -> Iterator[Path]:
    return (path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
