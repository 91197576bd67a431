"""`dataset_metadata.json`: an index of a skill's episodes, derived from their files and from their labels.

The index caches; the files decide. An entry is believed for as long as the size and the modification time of its
episode are those that it was made from.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from foundation.errors import BtruntimeError
from foundation.files import sha256_of
from skills.documents import read_object, write_object
from skills.episodes.header import EpisodeError, utc_text
from skills.episodes.labels import EpisodeLabels, Outcome, load_labels, save_labels
from skills.episodes.naming import episode_files, episode_number, episode_path, episode_videos
from skills.episodes.reader import Episode
from skills.locks import locked

INDEX_NAME = "dataset_metadata.json"
INDEX_SCHEMA = 1
_MAX_BYTES = 64 << 20
_ATTEMPTS = 100
_REMEDY = 'Run "btruntime dataset check" on the skill; it rebuilds the index and keeps a copy of this file.'


class EpisodeIndexError(BtruntimeError):
    """The index of a `data/` directory cannot be read or written."""


class EpisodeSummary(BaseModel):
    """One episode as the index lists it.

    Attributes:
        file_name: within `data/`.
        start_timestamp, end_timestamp: ISO-8601 with Z; as found, for recordings of the reference robot.
        sha256: of the `.h5`; None until it was computed.
        video_files: the mp4 files beside it, sorted by name.
        scene_seed: of the simulated scene; None where there was none, or it is not known.
        problem: why the episode cannot be used; then the numbers are 0.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    episode_id: int
    file_name: str
    start_timestamp: str | None = None
    end_timestamp: str | None = None
    length: int = 0
    duration_s: float = 0.0
    data_frequency: float | None = None
    source: str | None = None
    recovered: str | None = None
    has_images: bool = False
    outcome: Outcome = "unlabelled"
    note: str = ""
    trash: bool = False
    sha256: str | None = None
    size_bytes: int = 0
    mtime_ns: int = 0
    video_files: tuple[str, ...] = ()
    scene_seed: int | None = None
    problem: str | None = None


def list_episodes(data_dir: Path) -> list[EpisodeSummary]:
    """Every episode in `data_dir`, in order, broken ones with their `problem`. Writes nothing.

    Files that the index does not know, or knows otherwise, are opened; no hash is computed.
    """
    try:
        known = _entries(_read_index(data_dir))
    except EpisodeIndexError:
        known = {}
    return _summaries(data_dir, known, hashed=lambda _: False)


def recorded_seeds(data_dir: Path) -> frozenset[int]:
    """Seeds of the simulated scenes that the episodes show. Empty where the directory does not exist."""
    return frozenset(each.scene_seed for each in list_episodes(data_dir) if each.scene_seed is not None)


def index_problem(data_dir: Path) -> str | None:
    """Why the index that is there cannot be read, as a sentence; None where it can, or where there is none."""
    try:
        _read_index(data_dir)
    except EpisodeIndexError as error:
        return str(error)
    return None


def rebuild_index(data_dir: Path) -> list[EpisodeSummary]:
    """Derive the index again and write it where it differs; hashes the episodes whose hash is not known.

    An index that cannot be read is kept as `dataset_metadata.json.corrupt-<n>`. Fields that btruntime does not
    know survive, of the index and of the episodes that are still there.
    """
    return _update(data_dir, hashed=lambda _: True)


def index_episode(episode: Path) -> None:
    """Add one episode to the index. No other is opened or hashed, as long as the index agrees with the files."""
    _update(episode.parent, hashed=lambda path: path == episode)


def set_labels(episode: Path, **changes: object) -> EpisodeLabels:
    """Change outcome, note or trash of an episode, in `episode_N.json` and in the index.

    Raises:
        EpisodeError: there is no such episode, or a value is wrong.
    """
    if episode_number(episode.name) is None or not episode.is_file():
        raise EpisodeError(f"{episode}: no such episode. The directory holds {_listed(episode.parent)}.")
    with locked(_lock_path(episode.parent)):
        try:
            labels = EpisodeLabels.model_validate(load_labels(episode).model_dump() | changes)
        except ValidationError as error:
            first = error.errors()[0]
            raise EpisodeError(f"{episode.name}: {first['loc'][0]} is {first['input']!r}: {first['msg']}.") from error
        save_labels(episode, labels)
    index_episode(episode)
    return labels


def _update(data_dir: Path, hashed: Callable[[Path], bool]) -> list[EpisodeSummary]:
    with locked(_lock_path(data_dir)):
        for _ in range(_ATTEMPTS):
            previous = _read_or_keep_copy(data_dir)
            known = _entries(previous)
            found = _summaries(data_dir, known, hashed)
            if _write_if_unchanged(data_dir, previous, _document(previous, known, found)):
                return found
    raise EpisodeIndexError(
        f"{data_dir / INDEX_NAME}: another program rewrites it all the time. Stop that program and try again."
    )


def _write_if_unchanged(data_dir: Path, previous: dict[str, Any], document: dict[str, Any]) -> bool:
    """Write unless there is nothing new; False when another writer (one without our lock) came in between."""
    if document == previous:
        return True
    with suppress(EpisodeIndexError):
        if _revision(_read_index(data_dir)) != _revision(previous):
            return False
    write_object(data_dir / INDEX_NAME, document | {"revision": _revision(previous) + 1})
    return True


def _document(
    previous: dict[str, Any], known: dict[int, dict[str, Any]], found: list[EpisodeSummary]
) -> dict[str, Any]:
    """The index of what was found; an episode that cannot be read keeps the entry that it had, if it had one."""
    usable = [summary for summary in found if summary.problem is None]
    entries = []
    for summary in found:
        entry = known.get(summary.episode_id, {})
        if summary.problem is None:
            entries.append(entry | summary.model_dump(mode="json", exclude={"problem"}))
        elif entry:
            entries.append(entry | {"file_name": summary.file_name})
    dataset_type = "h5" if all(summary.has_images for summary in usable) else "h264"
    frequency = next((s.data_frequency for s in usable if s.data_frequency is not None), None)
    return previous | {
        "schema": INDEX_SCHEMA,
        "revision": _revision(previous),
        "data_frequency": frequency if frequency is not None else previous.get("data_frequency"),
        "dataset_type": dataset_type if usable else previous.get("dataset_type", dataset_type),
        "number_of_episodes": len(entries),
        "episodes": entries,
    }


def _summaries(
    data_dir: Path, known: dict[int, dict[str, Any]], hashed: Callable[[Path], bool]
) -> list[EpisodeSummary]:
    videos = episode_videos(data_dir)
    return [
        _summary(path, number, known.get(number), videos.get(number, ()), hashed=hashed(path))
        for number, path in episode_files(data_dir).items()
    ]


def _summary(
    path: Path, number: int, entry: dict[str, Any] | None, videos: tuple[str, ...], *, hashed: bool
) -> EpisodeSummary:
    try:
        summary = _believed(path, number, entry) or _read_summary(path, number)
        labels = load_labels(path)
    except (EpisodeError, OSError) as error:
        return EpisodeSummary(episode_id=number, file_name=path.name, problem=str(error))
    update: dict[str, object] = {"video_files": videos} | labels.model_dump(include={"outcome", "note", "trash"})
    if hashed and summary.sha256 is None:
        update["sha256"] = sha256_of(path)
    return summary.model_copy(update=update)


def _believed(path: Path, number: int, entry: dict[str, Any] | None) -> EpisodeSummary | None:
    """The entry as it stands, if it was made from this very file; its number and name are the file's."""
    stat = path.stat()
    if entry is None or entry.get("size_bytes") != stat.st_size or entry.get("mtime_ns") != stat.st_mtime_ns:
        return None
    try:
        return EpisodeSummary.model_validate(entry | {"episode_id": number, "file_name": path.name})
    except ValidationError:
        return None


def _read_summary(path: Path, number: int) -> EpisodeSummary:
    stat = path.stat()
    with Episode(path) as episode:
        return EpisodeSummary(
            episode_id=number,
            file_name=path.name,
            start_timestamp=utc_text(episode.header.start_utc),
            end_timestamp=utc_text(episode.end_utc) if episode.end_utc is not None else None,
            length=len(episode),
            duration_s=round(episode.duration_s, 6),
            data_frequency=episode.header.data_frequency_hz,
            source=episode.header.source,
            recovered=episode.recovered,
            has_images=episode.has_images,
            scene_seed=episode.header.scene_seed,
            size_bytes=stat.st_size,
            mtime_ns=stat.st_mtime_ns,
        )


def _entries(document: dict[str, Any]) -> dict[int, dict[str, Any]]:
    entries = {}
    for entry in document.get("episodes") or []:
        if isinstance(entry, dict) and isinstance(number := entry.get("episode_id"), int):
            entries[number] = entry
    return entries


def _read_index(data_dir: Path) -> dict[str, Any]:
    """The index as it stands; {} where there is none."""
    path = data_dir / INDEX_NAME
    if not path.exists():
        return {}
    document = read_object(path, EpisodeIndexError, _REMEDY, max_bytes=_MAX_BYTES)
    if not isinstance(document.get("episodes", []), list):
        raise EpisodeIndexError(f"{path}: episodes is not a list. {_REMEDY}")
    return document


def _read_or_keep_copy(data_dir: Path) -> dict[str, Any]:
    try:
        return _read_index(data_dir)
    except EpisodeIndexError:
        _keep_copy(data_dir / INDEX_NAME)
        return {}


def _keep_copy(path: Path) -> None:
    content, count = path.read_bytes(), 1
    while True:
        copy = path.with_name(f"{path.name}.corrupt-{count}")
        try:
            with copy.open("xb") as file:
                file.write(content)
        except FileExistsError:
            if copy.read_bytes() == content:
                return
            count += 1
        else:
            return


def _revision(document: dict[str, Any]) -> int:
    revision = document.get("revision", 0)
    return revision if isinstance(revision, int) else 0


def _lock_path(data_dir: Path) -> Path:
    return data_dir / ".dataset_metadata.lock"


def _listed(data_dir: Path) -> str:
    return ", ".join(episode_path(data_dir, number).name for number in episode_files(data_dir)) or "none"
