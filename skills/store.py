"""The skills that are on disk: the user's directory and the shipped one, looked at again at every scan."""

from __future__ import annotations

import os
import secrets
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from foundation.errors import BtruntimeError
from foundation.files import PathEscapesError, confined, fsync_dir
from skills.episodes.naming import episode_files
from skills.ids import Namespace, SkillId, directory_name, resolve
from skills.metadata import (
    METADATA_NAME,
    LearnedExecution,
    MetadataError,
    ReplayExecution,
    SkillMetadata,
    SkillType,
    load_metadata,
    save_metadata,
)

SKILLS_DIR_VARIABLE = "BTRUNTIME_SKILLS_DIR"
SkillKind = Literal["learned", "replay", "poses", "code"]
# A file this young may change again without its times and its size showing it.
_SETTLED_NS = 100_000_000
_NEW_EXECUTION = ("duration", "progress_threshold", "start_pose", "end_pose", "n_action_steps")


class StoreError(BtruntimeError):
    """A skills directory cannot be used, or a skill cannot be created."""


@dataclass(frozen=True, slots=True)
class SkillEntry:
    """One skill as it was found.

    Attributes:
        path: its directory, or its file for a code skill.
        metadata: None for a code skill, and for one whose metadata cannot be read.
        kind: None where it cannot be told.
        episode_count: files in its `data/`.
        in_training: a learned skill without a checkpoint that exists.
        problem: why it cannot be run, for a person; None for a sound one, in training or not.
    """

    id: SkillId
    path: Path
    metadata: SkillMetadata | None
    kind: SkillKind | None
    episode_count: int = 0
    in_training: bool = False
    problem: str | None = None

    @property
    def display_name(self) -> str:
        """Free text for people."""
        return (self.metadata.name.strip() if self.metadata else "") or self.id.name

    @property
    def data_dir(self) -> Path:
        """Where its episodes are."""
        return self.path / "data"

    @property
    def runnable(self) -> bool:
        """Neither broken nor in training."""
        return self.problem is None and not self.in_training


class SkillStore:
    """Finds and creates skills. Remembers parsed metadata by the file's identity, so that a scan is cheap.

    Any thread may call it; two at once do the same work twice.

    Args:
        user_dir: None for `$BTRUNTIME_SKILLS_DIR`, or `~/skills`. Need not exist.
        builtin_dir: the shipped skills.
    """

    def __init__(self, user_dir: Path | None = None, builtin_dir: Path | None = None):
        self.user_dir = user_dir if user_dir is not None else default_skills_dir()
        self.builtin_dir = builtin_dir if builtin_dir is not None else Path(__file__).parent / "builtin"
        self._read: dict[Path, tuple[tuple[int, ...], SkillMetadata | MetadataError]] = {}

    def scan(self) -> list[SkillEntry]:
        """Every skill that is on disk now, sorted by ID. A broken one has a `problem` and hides nothing.

        Raises:
            StoreError: a skills directory is there and cannot be listed.
        """
        found = [*self._scan_root(self.user_dir, "local"), *self._scan_root(self.builtin_dir, "builtin")]
        present = {entry.path for entry in found}
        self._read = {path: read for path, read in self._read.items() if path.parent in present}
        return sorted(_with_collisions(found), key=lambda entry: (entry.id, str(entry.path)))

    def get(self, query: str) -> SkillEntry:
        """The one skill that an ID names, as it is on disk now.

        Raises:
            UnknownSkillError, AmbiguousSkillError, SkillIdError: see `skills.ids.resolve`.
        """
        entries = self.scan()
        found = resolve(query, [entry.id for entry in entries])
        return next(entry for entry in entries if entry.id == found)

    def create(self, display_name: str, type: SkillType = "learned") -> SkillEntry:
        """Make the directory and the metadata of a new skill of the user's.

        Raises:
            StoreError: a skill of this name exists, or the directory cannot be made.
            SkillIdError: the name is blank.
        """
        skill_id = SkillId("local", directory_name(display_name))
        for entry in self._scan_root(self.user_dir, "local"):
            if entry.id.key == skill_id.key:
                raise StoreError(f"{entry.path}: exists already, as {entry.id}. Choose another name.")
        execution = dict.fromkeys(_NEW_EXECUTION) if type == "learned" else {}
        document = {
            "name": display_name.strip(),
            "type": type,
            "guidelines": "",
            "guidelines_when_running": "",
            "inputs": {},
            "execution": execution,
        }
        directory = self.user_dir / skill_id.name
        self._make(directory, SkillMetadata.from_document(document, directory / METADATA_NAME))
        return self.get(str(skill_id))

    def _make(self, directory: Path, metadata: SkillMetadata) -> None:
        """Build under a hidden name and rename, which fails where a directory with content has the name."""
        try:
            hidden = self.user_dir / f".new-{secrets.token_hex(8)}"
            hidden.mkdir(parents=True)
            try:
                save_metadata(hidden / METADATA_NAME, metadata)
                hidden.rename(directory)
            except BaseException:
                shutil.rmtree(hidden)
                raise
            fsync_dir(self.user_dir)
        except OSError as error:
            raise StoreError(f"{directory}: cannot be created: {error.strerror}. Choose another name.") from error

    def _scan_root(self, root: Path, namespace: Namespace) -> Iterator[SkillEntry]:
        try:
            paths = sorted(root.iterdir())
        except FileNotFoundError:
            return
        except OSError as error:
            raise StoreError(f"{root}: cannot be listed: {error.strerror}. Expected a directory of skills.") from error
        for path in paths:
            if path.name.startswith((".", "_")):
                continue
            if path.suffix == ".py":
                yield _code_entry(path, namespace)
            elif path.is_dir():
                yield from self._directory_entry(path, SkillId(namespace, path.name))

    def _directory_entry(self, directory: Path, skill_id: SkillId) -> Iterator[SkillEntry]:
        path, count = directory / METADATA_NAME, 0
        try:
            if not os.path.lexists(path) and not (directory / "data").is_dir():
                return
            count = len(episode_files(directory / "data"))
            metadata = self._metadata(path)
        except (MetadataError, OSError) as error:
            # Its episodes are there all the same: they are counted, so that nobody takes them for lost.
            yield SkillEntry(skill_id, directory, None, None, count, problem=str(error))
            return
        in_training, problem = _readiness(directory, metadata)
        yield SkillEntry(skill_id, directory, metadata, metadata.type, count, in_training, problem)

    def _metadata(self, path: Path) -> SkillMetadata:
        identity = _identity(path)
        remembered, result = self._read.get(path, ((), None))
        if result is None or remembered != identity:
            try:
                result = load_metadata(path)
            except MetadataError as error:
                result = error
            if identity and identity[0] < time.time_ns() - _SETTLED_NS:
                self._read[path] = identity, result
        if isinstance(result, MetadataError):
            raise result
        return result


def default_skills_dir() -> Path:
    """`$BTRUNTIME_SKILLS_DIR`, or `~/skills`."""
    return Path(os.environ.get(SKILLS_DIR_VARIABLE) or "~/skills").expanduser()


def _identity(path: Path) -> tuple[int, ...]:
    """Changes with the content; () where there is no such file."""
    try:
        stat = path.stat()
    except OSError:
        return ()
    return max(stat.st_mtime_ns, stat.st_ctime_ns), stat.st_mtime_ns, stat.st_size, stat.st_ino


def _code_entry(path: Path, namespace: Namespace) -> SkillEntry:
    problem = None if path.is_file() else f"{path}: not a file, expected Python source. Remove or repair it."
    return SkillEntry(SkillId(namespace, path.stem), path, None, "code", problem=problem)


def _readiness(directory: Path, metadata: SkillMetadata) -> tuple[bool, str | None]:
    """Whether the skill is in training, and what is wrong with it."""
    execution, where = metadata.execution, directory / METADATA_NAME
    try:
        if isinstance(execution, LearnedExecution):
            return not _has_checkpoint(directory, execution), None
        if isinstance(execution, ReplayExecution):
            return False, _replay_problem(directory, execution)
    except PathEscapesError as error:
        return isinstance(execution, LearnedExecution), str(error)
    if not execution.poses:
        return False, f"{where}: execution.poses is empty, expected at least one pose. Add one."
    return False, None


def _has_checkpoint(directory: Path, execution: LearnedExecution) -> bool:
    if execution.checkpoint is None:
        return False
    where = f"{directory / METADATA_NAME}: execution.checkpoint"
    return confined(directory, execution.checkpoint, what=where).is_file()


def _replay_problem(directory: Path, execution: ReplayExecution) -> str | None:
    where = f"{directory / METADATA_NAME}: execution.replay_file"
    if not execution.replay_file:
        return f"{where} is missing, expected an episode of this skill such as data/episode_0.h5. Set it."
    if not confined(directory, execution.replay_file, what=where).is_file():
        return f"{where} is {execution.replay_file!r}, which does not exist. Set it to an episode of this skill."
    return None


def _with_collisions(entries: list[SkillEntry]) -> Iterator[SkillEntry]:
    """The entries; those whose ID another one has too get that as their problem."""
    paths: dict[SkillId, list[Path]] = {}
    for entry in entries:
        paths.setdefault(entry.id, []).append(entry.path)
    for entry in entries:
        others = [str(path) for path in paths[entry.id] if path != entry.path]
        if others and entry.problem is None:
            yield replace(entry, problem=f"{entry.path}: has the ID {entry.id}, as has {others[0]}. Rename one.")
        else:
            yield entry
