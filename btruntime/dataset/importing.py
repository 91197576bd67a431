"""Bringing the episodes of another program's dataset into a skill, one at a time: it can be stopped and resumed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from btruntime.dataset.source import DatasetError, DatasetSource, SourceEpisode
from hal.types import ActionSpec
from skills.episodes import Episode, EpisodeError, EpisodeHeader, save_episode
from skills.episodes.naming import episode_files
from skills.ids import UnknownSkillError
from skills.metadata import LearnedExecution, update_metadata
from skills.store import SkillEntry, SkillStore


@dataclass(frozen=True, slots=True)
class ImportedEpisode:
    """One episode that is in the skill now.

    Attributes:
        number: in its dataset.
        path: of the file here.
        steps: its length.
        before: it had been imported before.
    """

    number: int
    path: Path
    steps: int
    before: bool = False


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What became of a dataset.

    Attributes:
        episodes: in the skill now, in order.
        missing: listed by the dataset and not there; a sentence by number.
        refused: there and not usable; a sentence by number.
        notes: what had to be changed or guessed, for all episodes or some of them.
        cancelled: it was stopped before the end; the same command goes on.
    """

    episodes: tuple[ImportedEpisode, ...]
    missing: Mapping[int, str]
    refused: Mapping[int, str]
    notes: tuple[str, ...]
    cancelled: bool = False


@dataclass(slots=True)
class _Progress:
    """What has been done so far."""

    episodes: list[ImportedEpisode] = field(default_factory=list)
    refused: dict[int, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def target_skill(store: SkillStore, name: str, source: DatasetSource) -> SkillEntry:
    """The skill of that ID, or a new learned one of that name, with the dataset's task as its guidelines.

    Raises:
        DatasetError: the skill is of a type that has no demonstrations.
        AmbiguousSkillError, SkillIdError, StoreError: see `SkillStore`.
    """
    try:
        entry = store.get(name)
    except UnknownSkillError:
        entry = store.create(name)
        if source.task:
            update_metadata(entry.path / "metadata.json", guidelines=source.task)
        return store.get(str(entry.id))
    if entry.problem is None and entry.metadata and not isinstance(entry.metadata.execution, LearnedExecution):
        raise DatasetError(f"{entry.id} is a {entry.kind} skill; demonstrations belong into a learned one.")
    return entry


def import_dataset(
    source: DatasetSource,
    data_dir: Path,
    *,
    numbers: Collection[int] | None = None,
    progress: Callable[[int, str], None] = lambda number, note: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> ImportReport:
    """Save the episodes of a dataset into `data_dir`; those that are there already are left as they are.

    An episode keeps its number where nothing else has it. One that cannot be converted is told and left out.

    Args:
        source: the dataset.
        data_dir: the skill's `data/`.
        numbers: of the episodes to take; None for all.
        progress: told each number when it is done, and what became of it.
        cancelled: asked between episodes.

    Raises:
        DatasetError: a wanted number is not listed, or the episodes do not fit those that the skill has.
        OSError: the disk is full, or the directory cannot be written.
    """
    wanted = [n for n in source.present if numbers is None or n in numbers]
    if unknown := sorted(set(numbers or ()) - {*source.present, *source.missing}):
        raise DatasetError(f"{source.name} has no episode {', '.join(map(str, unknown))}.")
    missing = {n: why for n, why in source.missing.items() if numbers is None or n in numbers}
    if not wanted:
        raise DatasetError(f"{source.name}: none of its episodes is there. {next(iter(missing.values()), '')}".strip())
    there = _imported(data_dir, source)
    model = _first_header(data_dir)
    done = _Progress(notes=list(source.notes))
    for number in wanted:
        if cancelled():
            return _report(done, missing, cancelled=True)
        if number in there:
            done.episodes.append(there[number])
            progress(number, f"{there[number].path.name} was there")
            continue
        try:
            episode = source.read(number)
            model = _refuse_other_kind(episode, model, number, source)
            saved = _saved(episode, data_dir, number)
        except (_OtherKindError, EpisodeError) as error:
            if isinstance(error, _OtherKindError):
                raise DatasetError(str(error)) from error
            done.refused[number] = f"episode {number}: {error}"
            progress(number, "left out")
            continue
        except DatasetError as error:
            done.refused[number] = str(error)
            progress(number, "left out")
            continue
        done.episodes.append(saved)
        done.notes.extend(episode.header.origin.notes if episode.header.origin else ())
        progress(number, saved.path.name)
    return _report(done, missing)


def _report(done: _Progress, missing: Mapping[int, str], *, cancelled: bool = False) -> ImportReport:
    notes = tuple(dict.fromkeys(done.notes))
    return ImportReport(tuple(done.episodes), missing, done.refused, notes, cancelled)


def _saved(episode: SourceEpisode, data_dir: Path, number: int) -> ImportedEpisode:
    frames = {camera: frames() for camera, frames in episode.frames.items()}
    path = save_episode(
        data_dir,
        episode.header,
        episode.rows,
        frames=frames,
        videos=episode.videos,
        number=number,
        end_utc=episode.end_utc,
    )
    return ImportedEpisode(number, path, len(episode.rows["action"]))


def _imported(data_dir: Path, source: DatasetSource) -> dict[int, ImportedEpisode]:
    """The episodes of that dataset that are in the skill, by their number there."""
    found = {}
    for path, header, steps in _headers(data_dir):
        origin = header.origin
        if origin is not None and (origin.format, origin.dataset) == (source.format, source.name):
            found[origin.episode] = ImportedEpisode(origin.episode, path, steps, before=True)
    return found


def _first_header(data_dir: Path) -> tuple[str, EpisodeHeader] | None:
    """Name and header of an episode that the skill has, to compare others with."""
    return next(((path.name, header) for path, header, _ in _headers(data_dir)), None)


def _headers(data_dir: Path) -> Iterable[tuple[Path, EpisodeHeader, int]]:
    for path in episode_files(data_dir).values():
        try:
            with Episode(path) as episode:
                yield path, episode.header, len(episode)
        except EpisodeError:
            continue  # `dataset list` tells of it; an import need not.


class _OtherKindError(DatasetError):
    """An episode that the skill's other episodes cannot be trained together with."""


def _refuse_other_kind(
    episode: SourceEpisode, model: tuple[str, EpisodeHeader] | None, number: int, source: DatasetSource
) -> tuple[str, EpisodeHeader]:
    """What the next episode is compared with.

    Raises:
        _OtherKindError: names what differs.
    """
    header = episode.header
    if model is None:
        return f"episode {number} of {source.name}", header
    name, first = model
    for what, mine, theirs in (
        ("cameras", sorted(header.camera_names), sorted(first.camera_names)),
        ("joints", header.joint_names, first.joint_names),
        ("actions", _told(header.action), _told(first.action)),
        ("data_frequency", header.data_frequency_hz, first.data_frequency_hz),
    ):
        if mine != theirs:
            raise _OtherKindError(
                f"episode {number} of {source.name}: {what} are {mine}, expected {theirs} as in {name}, which the "
                f"skill has already. Import it into a skill of its own."
            )
    return model


def _told(spec: ActionSpec) -> list[str]:
    return [f"{dim.name} ({dim.kind} in {dim.unit})" for dim in spec.dims]
