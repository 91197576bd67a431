"""Looking at every byte of a skill's episodes, whatever the index says of them."""

from __future__ import annotations

from pathlib import Path

from foundation.files import sha256_of
from skills.episodes.header import EpisodeError
from skills.episodes.index import EpisodeSummary, rebuild_index
from skills.episodes.naming import video_path
from skills.episodes.reader import Episode


def check_episodes(data_dir: Path) -> list[EpisodeSummary]:
    """Every episode in order, those that are not as they were recorded with their `problem`; rebuilds the index.

    Opens and hashes each file: a byte that went wrong on the disk changes neither size nor modification time.
    """
    return [
        summary
        if summary.problem is not None
        else summary.model_copy(update={"problem": _problem(data_dir / summary.file_name, summary.sha256)})
        for summary in rebuild_index(data_dir)
    ]


def _problem(path: Path, sha256: str | None) -> str | None:
    try:
        with Episode(path) as episode:
            found = sha256_of(path)
            for camera, expected in episode.header.videos.items():
                _check_video(video_path(path, camera), expected)
                episode.frame(camera, -1)
    except EpisodeError as error:
        return str(error)
    except OSError as error:
        return f"{path}: cannot be read: {error}. Is the disk healthy?"
    if sha256 is not None and found != sha256:
        return (
            f"{path}: its SHA-256 is {found}, expected {sha256} as in the index. Copy it again from where it came "
            f"from, or move it out of {path.parent.name}/."
        )
    return None


def _check_video(path: Path, expected: str) -> None:
    if not path.is_file():
        raise EpisodeError(f"{path}: missing, and its episode has no other frames. Import or copy it again.")
    if (found := sha256_of(path)) != expected:
        raise EpisodeError(
            f"{path}: its SHA-256 is {found}, expected {expected} as in its episode. Import or copy it again."
        )
