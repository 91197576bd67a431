"""The index of a dataset of the reference robot, and which episodes lie beside it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from btruntime.dataset.source import DatasetError
from foundation.described import first_problem
from foundation.files import PathEscapesError, confined
from hal.types import Positive
from skills.documents import read_object
from skills.episodes.naming import episode_files, episode_number, episode_path, episode_videos

INDEX = "dataset_metadata.json"
METADATA = "metadata.json"

_MAX_INDEX_BYTES = 64 << 20
_AGAIN = "Copy the dataset again."


class _Read(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class _IndexEntry(_Read):
    file_name: str
    start_timestamp: str | None = None
    video_files: tuple[str, ...] | None = None
    outcome: str | None = None


class _Index(_Read):
    data_frequency: Positive | None = None
    task_name: str | None = None
    episodes: Annotated[tuple[_IndexEntry, ...], Field(max_length=1_000_000)] = ()


@dataclass(frozen=True, slots=True)
class Listed:
    """One episode as index and directory show it.

    Attributes:
        path: its HDF5 file, which may not exist.
        videos: by the camera's name, its mp4, which may not exist.
        start: without a zone; None where it is not stated.
        outcome: "" where it is not stated.
    """

    path: Path
    videos: dict[str, Path]
    start: datetime | None = None
    outcome: str = ""


@dataclass(frozen=True, slots=True)
class Contents:
    """What the directory of a dataset says before any episode is opened."""

    name: str
    task: str
    frequency_hz: float | None
    episodes: dict[int, Listed]
    notes: tuple[str, ...]


def data_directory(root: Path) -> Path | None:
    """Where the episodes of a dataset in `root` lie: in its `data/`, or in itself. None where there are none."""
    return next((each for each in (root / "data", root) if (each / INDEX).is_file() or episode_files(each)), None)


def read_contents(data: Path) -> Contents:
    """The episodes that the index lists, and those that lie beside it unlisted.

    Raises:
        DatasetError: the index names files that are no episodes, or that lie elsewhere.
    """
    index, notes = _read_index(data)
    episodes: dict[int, Listed] = {}
    for entry in index.episodes:
        number = episode_number(Path(entry.file_name).name)
        if number is None or number in episodes:
            raise DatasetError(
                f"{data / INDEX}: file_name is {entry.file_name!r}, expected episode_N.h5 with a number of its own. "
                f"{_AGAIN}"
            )
        path = _inside(data, entry.file_name, "file_name")
        videos = {_camera(path, name, data): _inside(data, name, "video_files") for name in entry.video_files or ()}
        episodes[number] = Listed(path, videos, _moment(entry.start_timestamp), entry.outcome or "")
    listed = bool(episodes)
    beside = episode_videos(data)
    for number in episode_files(data):
        if number not in episodes:
            episodes[number] = Listed(_inside(data, f"episode_{number}.h5", "the directory"), {})
            if listed:
                notes.append(f"episode_{number}.h5 is not in the index of the dataset.")
        found = episodes[number]
        for name in beside.get(number, ()):
            camera = _camera(episode_path(data, number), name, data)
            found.videos.setdefault(camera, _inside(data, name, "the directory"))
    name, said = _stated_name(data)
    return Contents(
        name=name,
        task=index.task_name or "",
        frequency_hz=index.data_frequency,
        episodes=dict(sorted(episodes.items())),
        notes=(*notes, *said),
    )


def _read_index(data: Path) -> tuple[_Index, list[str]]:
    """The index; an empty one where it is lost: the robot writes it in place, and a power cut leaves half of it."""
    path = data / INDEX
    if not path.exists():
        return _Index(), []
    try:
        found = read_object(_inside(data, INDEX, "the dataset"), DatasetError, _AGAIN, max_bytes=_MAX_INDEX_BYTES)
        return _Index.model_validate(found), []
    except ValidationError as error:
        return _Index(), [f"Its index {INDEX} was not used: {first_problem(error)}."]
    except DatasetError as error:
        return _Index(), [f"Its index was not used: {error}"]


def _stated_name(data: Path) -> tuple[str, list[str]]:
    """The skill's name from its metadata, which lie beside `data/`; else that of the directory."""
    place = data.resolve()
    skill = place.parent if place.name == "data" else place
    path = skill / METADATA
    if not path.is_file():
        return skill.name, []
    try:
        name = read_object(path, DatasetError, "Its name was not used.").get("name")
    except DatasetError as error:
        return skill.name, [str(error)]
    return (name.strip() if isinstance(name, str) else "") or skill.name, []


def _camera(episode: Path, video: str, data: Path) -> str:
    prefix = f"{episode.stem}_"
    if not (video.startswith(prefix) and video.endswith(".mp4") and len(video) > len(prefix) + 4):
        raise DatasetError(
            f"{data / INDEX}: video_files of {episode.name} has {video!r}, expected {prefix}<camera>.mp4. {_AGAIN}"
        )
    return video[len(prefix) : -4]


def _moment(text: str | None) -> datetime | None:
    """A time that the index states; local time, of a place that nobody knows."""
    try:
        return None if text is None else datetime.fromisoformat(text).replace(tzinfo=UTC)
    except ValueError:
        return None


def _inside(data: Path, name: str, field: str) -> Path:
    try:
        return confined(data, name, what=f"{data / INDEX}: {field}")
    except PathEscapesError as error:
        raise DatasetError(str(error)) from error
