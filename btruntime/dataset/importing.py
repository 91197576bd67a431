"""Bringing the episodes of another program's dataset into a skill, one at a time: it can be stopped and resumed."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from btruntime.dataset.source import DatasetError, DatasetSource, SourceEpisode
from hal.types import ActionSpec
from skills.episodes import Episode, EpisodeError, EpisodeHeader, save_episode
from skills.episodes.naming import episode_files
from skills.ids import UnknownSkillError
from skills.metadata import METADATA_NAME, LearnedExecution, update_metadata
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
        skill: where its episodes are; None where none came and no skill was there.
        episodes: in the skill now, in order.
        missing: listed by the dataset and not there; a sentence by number.
        refused: there and not usable; a sentence by number.
        notes: what had to be changed or guessed, for all episodes or some of them.
        cancelled: it was stopped before the end; the same command goes on.
    """

    skill: SkillEntry | None
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


def import_dataset(
    source: DatasetSource,
    store: SkillStore,
    skill: str,
    *,
    numbers: Collection[int] | None = None,
    progress: Callable[[int, str], None] = lambda number, note: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> ImportReport:
    """Save the episodes of a dataset into a skill; those that are there already are left as they are.

    An episode keeps its number where nothing else has it. One that cannot be converted is told and left out. A skill
    that does not exist is made for the first episode, learned, with the dataset's task as its guidelines.

    Args:
        source: the dataset.
        store: where the skill is.
        skill: its ID, or the name of a new one.
        numbers: of the episodes to take; None for all.
        progress: told each number when it is done, and what became of it.
        cancelled: asked between episodes.

    Raises:
        DatasetError: a number is not of the dataset, no episode is there, an episode is of another kind than those
            that the skill has, or the skill has no demonstrations.
        AmbiguousSkillError, SkillIdError, StoreError: see `SkillStore`.
        EpisodeWriteError: the disk is full.
        OSError: the directory cannot be written.
    """
    wanted = [n for n in source.present if numbers is None or n in numbers]
    if unknown := sorted(set(numbers or ()) - {*source.present, *source.missing}):
        raise DatasetError(f"{source.name} has no episode {', '.join(map(str, unknown))}.")
    missing = {n: why for n, why in source.missing.items() if numbers is None or n in numbers}
    if not wanted:
        raise DatasetError(f"{source.name}: none of its episodes is there. {next(iter(missing.values()), '')}".strip())
    target = _Target(store, skill, source.task)
    there = {} if target.entry is None else _imported(target.entry.data_dir, source)
    model = None if target.entry is None else _first_header(target.entry.data_dir)
    done = _Progress(notes=list(source.notes))
    stopped = False
    try:
        for number in wanted:
            if stopped := cancelled():
                break
            if number in there:
                done.episodes.append(there[number])
                progress(number, f"{there[number].path.name} was there")
                continue
            try:
                episode = source.read(number)
            except DatasetError as error:
                done.refused[number] = str(error)
                progress(number, "left out")
                continue
            if model is not None:
                _refuse_other_kind(episode.header, model, number, source)
            try:
                saved = _saved(episode, target.made().data_dir, number)
            except (DatasetError, EpisodeError) as error:
                done.refused[number] = f"episode {number}: {error}"
                progress(number, "left out")
                continue
            model = model or (saved.path.name, episode.header)
            done.episodes.append(saved)
            done.notes.extend(episode.header.origin.notes if episode.header.origin else ())
            progress(number, saved.path.name)
    finally:
        target.forget_if_unused()
    notes = tuple(dict.fromkeys(done.notes))
    entry = None if target.entry is None else store.get(str(target.entry.id))
    return ImportReport(entry, tuple(done.episodes), missing, done.refused, notes, stopped)


class _Target:
    """The skill that episodes go into: one that is there, or one that is made when the first episode comes.

    Attributes:
        entry: None while there is none.

    Raises:
        DatasetError: the skill that is there has no demonstrations, or its metadata cannot be read.
    """

    def __init__(self, store: SkillStore, name: str, task: str):
        self._store, self._name, self._task = store, name, task
        self._new = False
        self.entry: SkillEntry | None = None
        try:
            found = self.entry = store.get(name)
        except UnknownSkillError:
            return
        if found.metadata is None and found.problem is not None:
            raise DatasetError(f"{found.id} cannot take episodes: {found.problem}")
        if found.metadata is None or not isinstance(found.metadata.execution, LearnedExecution):
            raise DatasetError(f"{found.id} is a {found.kind} skill; demonstrations belong into a learned one.")

    def made(self) -> SkillEntry:
        """The skill, which exists now."""
        if self.entry is None:
            self.entry, self._new = self._store.create(self._name), True
            if self._task:
                update_metadata(self.entry.path / METADATA_NAME, guidelines=self._task)
                self.entry = self._store.get(str(self.entry.id))
        return self.entry

    def forget_if_unused(self) -> None:
        """Take away a skill that was made here, if nothing came into it."""
        if not self._new or self.entry is None:
            return
        path = self.entry.path
        files = [file for file in path.rglob("*") if file.is_file() and file != path / METADATA_NAME]
        if any(file.stat().st_size for file in files):
            return
        shutil.rmtree(path.rename(path.with_name(f".unused-{secrets.token_hex(8)}")))
        self.entry = None


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


def _refuse_other_kind(
    header: EpisodeHeader, model: tuple[str, EpisodeHeader], number: int, source: DatasetSource
) -> None:
    """Refuse an episode that cannot be trained together with those that the skill has.

    Raises:
        DatasetError: names what differs.
    """
    name, first = model
    for what, mine, theirs in (
        ("cameras", sorted(header.camera_names), sorted(first.camera_names)),
        ("joints", header.joint_names, first.joint_names),
        ("actions", _told(header.action), _told(first.action)),
        ("data_frequency", [header.data_frequency_hz], [first.data_frequency_hz]),
    ):
        if list(mine) != list(theirs):
            raise DatasetError(
                f"episode {number} of {source.name}: {what} is {', '.join(map(str, mine))}, expected "
                f"{', '.join(map(str, theirs))} as in {name}, which the skill has already. Import it into a skill of "
                f"its own."
            )


def _told(spec: ActionSpec) -> list[str]:
    return [f"{dim.name} ({dim.kind} in {dim.unit})" for dim in spec.dims]
