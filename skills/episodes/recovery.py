"""What to do, at the next start, with recordings that nobody finished."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from foundation.files import write_atomic
from skills.episodes.header import EpisodeError, columns, utc_text
from skills.episodes.index import index_episode
from skills.episodes.layout import finish, new_file, write_steps
from skills.episodes.naming import (
    QUARANTINE,
    RECORDING_PREFIX,
    RECOVERING_PREFIX,
    TRASH,
    adopt,
    episode_files,
    identities,
    lock_path,
    recording_path,
    recovering_path,
    set_aside,
)
from skills.episodes.progress import fill_progress
from skills.episodes.reader import Episode
from skills.episodes.superblock import clear_write_mark
from skills.locks import OwnedLock


@dataclass(frozen=True, slots=True)
class Recovered:
    """What became of one unfinished recording.

    Attributes:
        recording: the file as it was found.
        episode: the episode that it became; None where it became none.
        steps: complete steps in it.
        original: where the recording itself is now; None where it is the episode.
        reason: one sentence for a person.
    """

    recording: Path
    episode: Path | None
    steps: int
    original: Path | None
    reason: str


def recover(data_dir: Path) -> list[Recovered]:
    """Turn the recordings that a crash left in `data_dir` into episodes. Nothing is deleted.

    A recording whose writer is alive is left alone. The complete steps of a readable one are copied to a clean file,
    which becomes the next episode; the original goes to `.trash/`. An unreadable one goes to `.quarantine/`, with the
    reason beside it. One for whose copy the disk has no room stays where it is. May block on the disk for seconds.
    """
    found = []
    for identity in _unfinished(data_dir):
        lock = OwnedLock.try_take(lock_path(data_dir, identity))
        if lock is None:
            continue
        try:
            found.append(_recover_one(data_dir, identity))
        finally:
            lock.release()
    _remove_idle_locks(data_dir)
    return found


def _unfinished(data_dir: Path) -> list[str]:
    return sorted({*identities(data_dir, RECORDING_PREFIX), *identities(data_dir, RECOVERING_PREFIX)})


def _recover_one(data_dir: Path, identity: str) -> Recovered:
    recording, copy = recording_path(data_dir, identity), recovering_path(data_dir, identity)
    if not recording.exists():
        return _adopt_copy(recording, copy, data_dir / TRASH / recording.name.lstrip("."))
    if episode := _same_file(recording, data_dir):
        recording.unlink()
        return _recovered(recording, episode, None, "finished; only its second name was left")
    try:
        clear_write_mark(recording)
        _copy_committed(recording, copy)
    except EpisodeError as error:
        copy.unlink(missing_ok=True)
        return _quarantine(recording, data_dir, error)
    except OSError as error:
        copy.unlink(missing_ok=True)
        reason = f"{recording}: cannot be copied: {error}. It stays where it is; free some space and start again."
        return Recovered(recording, None, 0, recording, reason)
    return _adopt_copy(recording, copy, set_aside(recording, data_dir / TRASH))


def _copy_committed(recording: Path, copy: Path) -> None:
    """Copy the complete steps, fill in progress, state why, and bring it to the disk."""
    copy.unlink(missing_ok=True)
    with Episode(recording, recording=True) as episode, new_file(copy) as file:
        header, steps = episode.header, len(episode)
        rows = {column.path: episode.column(column.path) for column in columns(header) if not column.is_image}
        for path in ("action", "applied_action"):
            rows[path] = fill_progress(rows[path], header.action)
        write_steps(file, header, steps, rows, {camera: episode.frames(camera) for camera in episode.camera_names})
        file.attrs["recovered"] = f"the writer ended before the episode was finalised; {steps} steps were complete"
        end_utc = header.start_utc + timedelta(seconds=float(episode.step_s[-1]))
    finish(copy, end_utc)


def _adopt_copy(recording: Path, copy: Path, original: Path) -> Recovered:
    """Make an episode of a complete copy; it is complete when its recording has been moved away."""
    if episode := _same_file(copy, recording.parent):
        copy.unlink()
    else:
        episode = adopt(copy, recording.parent)
    return _recovered(recording, episode, original, "the writer ended before the episode was finalised")


def _recovered(recording: Path, episode: Path, original: Path | None, reason: str) -> Recovered:
    index_episode(episode)
    with Episode(episode) as found:
        return Recovered(
            recording, episode, len(found), original, f"{episode.name}: recovered, {len(found)} steps: {reason}."
        )


def _quarantine(recording: Path, data_dir: Path, error: EpisodeError) -> Recovered:
    moved = set_aside(recording, data_dir / QUARANTINE)
    reason = f"{error} Found on {utc_text(datetime.now(UTC))}; moved here, nothing was deleted.\n"
    write_atomic(moved.with_name(f"{moved.name}.reason.txt"), reason.encode())
    return Recovered(recording, None, 0, moved, f"{recording.name}: moved to {moved}: {error}")


def _same_file(path: Path, data_dir: Path) -> Path | None:
    """The episode that is the same file as `path`: a kill between giving the new name and removing the old."""
    if path.stat().st_nlink < 2:
        return None
    return next((episode for episode in episode_files(data_dir).values() if episode.samefile(path)), None)


def _remove_idle_locks(data_dir: Path) -> None:
    """Locks of writers that were killed before they made their file."""
    for path in data_dir.glob(f"{RECORDING_PREFIX}*.lock"):
        if not path.with_suffix(".h5").exists() and (lock := OwnedLock.try_take(path)):
            lock.release()
