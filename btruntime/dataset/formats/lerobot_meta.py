"""What a LeRobot dataset (v2.0, v2.1) says of itself in `meta/`, and where it says that its files are."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from btruntime.dataset.source import DatasetError
from foundation.described import first_problem
from foundation.files import PathEscapesError, confined
from hal.types import Positive
from skills.documents import read_object

VERSIONS = ("v2.0", "v2.1")
INFO = "meta/info.json"

_AGAIN = "Download or copy the dataset again."
_MAX_INFO_BYTES = 16 << 20
_MAX_LINES_BYTES = 256 << 20
_MAX_EPISODES = 1_000_000
_FIELD = re.compile(r"\{(\w*)(?::0?(\d)d)?\}")
_Model = TypeVar("_Model", bound=BaseModel)

Count = Annotated[int, Field(ge=0, lt=1 << 40)]


class _Read(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Feature(_Read):
    """A column or a video: what its numbers are called is in `names`, in one of many forms."""

    dtype: str
    shape: Annotated[tuple[Count, ...], Field(max_length=8)]
    names: Any = None
    info: dict[str, Any] | None = None

    @property
    def is_camera(self) -> bool:
        return self.dtype in ("video", "image")

    @property
    def is_depth(self) -> bool:
        found = self.info or {}
        return bool(found.get("video.is_depth_map") or found.get("is_depth_map"))

    @property
    def size(self) -> int:
        """How many numbers a row of this column holds."""
        return self.shape[0] if len(self.shape) == 1 else 1 if not self.shape else -1


class Info(_Read):
    """`meta/info.json`."""

    codebase_version: str
    fps: Positive
    features: Annotated[dict[str, Feature], Field(max_length=1000)]
    data_path: str
    video_path: str | None = None
    robot_type: str | None = None
    chunks_size: Annotated[int, Field(ge=1)] = 1000


class _EpisodeLine(_Read):
    episode_index: Annotated[int, Field(ge=0, lt=_MAX_EPISODES)]
    length: Count
    tasks: tuple[str, ...] = ()


class _TaskLine(_Read):
    task_index: Count
    task: str


@dataclass(frozen=True, slots=True)
class EpisodeFiles:
    """Where one episode is. `table` and `videos` (by feature) hold this episode alone."""

    length: int
    tasks: tuple[str, ...]
    table: Path
    videos: dict[str, Path]

    def missing(self) -> str | None:
        """What is not there, as a sentence."""
        absent = [path.name for path in (self.table,) if not path.is_file()]
        absent += [f"{path.name} of {key}" for key, path in self.videos.items() if not path.is_file()]
        return f"{', '.join(absent)} is not there." if absent else None


def read_info(root: Path) -> Info:
    """The description of the dataset in `root`.

    Raises:
        DatasetError: it cannot be read, says something impossible, or is of a version that is not read.
    """
    path = _inside(root, INFO, "the dataset")
    found = read_object(path, DatasetError, _AGAIN, max_bytes=_MAX_INFO_BYTES)
    version = found.get("codebase_version")
    if version not in VERSIONS:
        raise DatasetError(
            f"{path}: codebase_version is {version!r}, expected {' or '.join(VERSIONS)}; other versions of LeRobot's "
            f"format are not read yet. Convert the dataset with LeRobot's own scripts, or look for an older revision."
        )
    return _validated(Info, found, str(path))


def read_episodes(root: Path, info: Info) -> dict[int, EpisodeFiles]:
    """The episodes that the dataset lists, by number, in order; whether their files are there was not looked at.

    Raises:
        DatasetError: the list cannot be read, or a path leaves the dataset.
    """
    videos = [key for key, feature in info.features.items() if feature.dtype == "video" and not feature.is_depth]
    if videos and info.video_path is None:
        raise DatasetError(f"{root / INFO}: video_path is missing, but {videos[0]} is a video. {_AGAIN}")
    found: dict[int, EpisodeFiles] = {}
    path = _inside(root, "meta/episodes.jsonl", "the dataset")
    for line in _lines(path, _EpisodeLine):
        number = line.episode_index
        if number in found:
            raise DatasetError(f"{path}: episode {number} is listed twice. {_AGAIN}")
        found[number] = EpisodeFiles(
            length=line.length,
            tasks=line.tasks,
            table=_file(root, info, "data_path", number, ""),
            videos={key: _file(root, info, "video_path", number, key) for key in videos},
        )
    if not found:
        raise DatasetError(f"{path}: lists no episode, expected one per line. {_AGAIN}")
    return dict(sorted(found.items()))


def read_tasks(root: Path) -> dict[int, str]:
    """What the tasks are, by number; empty where the dataset has no list of them."""
    path = _inside(root, "meta/tasks.jsonl", "the dataset")
    return {line.task_index: line.task for line in _lines(path, _TaskLine)} if path.exists() else {}


def _file(root: Path, info: Info, field: str, number: int, key: str) -> Path:
    """The file that a template of `info.json` names. Only the three known fields are filled in: no `str.format`."""
    values: dict[str, int | str] = {
        "episode_chunk": number // info.chunks_size,
        "episode_index": number,
        "video_key": key,
    }
    template = str(getattr(info, field))
    where = f"{root / INFO}: {field}"

    def filled(match: re.Match[str]) -> str:
        value = values.get(match[1])
        if value is None or (match[2] and isinstance(value, str)):
            raise DatasetError(f"{where} is {template!r}: {match[0]} in it is none of {', '.join(values)}. {_AGAIN}")
        return str(value).zfill(int(match[2] or 0))

    relative = _FIELD.sub(filled, template)
    if "{" in relative or "}" in relative:
        raise DatasetError(f"{where} is {template!r}, expected a path with {', '.join(values)} in braces. {_AGAIN}")
    return _inside(root, relative, where)


def _inside(root: Path, relative: str, what: str) -> Path:
    try:
        return confined(root, relative, what=what)
    except PathEscapesError as error:
        raise DatasetError(f"{error} A link to another directory counts as outside; copy the files in.") from error


def _lines(path: Path, model: type[_Model]) -> Iterator[_Model]:
    """The lines of a JSONL file."""
    try:
        if path.stat().st_size > _MAX_LINES_BYTES:
            raise DatasetError(f"{path}: larger than {_MAX_LINES_BYTES >> 20} MiB, which no such list should be.")
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield _validated(model, json.loads(line), f"{path}: line {number}")
    except (OSError, ValueError, RecursionError) as error:
        raise DatasetError(f"{path}: cannot be read as JSON lines: {error}. {_AGAIN}") from error


def _validated(model: type[_Model], found: object, where: str) -> _Model:
    try:
        return model.model_validate(found)
    except ValidationError as error:
        raise DatasetError(f"{where}: {first_problem(error)}. {_AGAIN}") from error
