"""How large a video is, and how many frames it has; nothing is decoded."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from btruntime.dataset.source import DatasetError
from skills.episodes import EpisodeError
from skills.episodes.video import VideoFrames, opened

_LARGEST = 8192


class VideoSize(NamedTuple):
    """Frame size and count of a video."""

    height: int
    width: int
    frames: int


def video_size(path: Path) -> VideoSize:
    """What the container says of its frames.

    Raises:
        DatasetError: no video, damaged, or larger than any camera.
    """
    try:
        container, stream = opened(path)
        try:
            height, width = int(stream.height), int(stream.width)
        finally:
            container.close()
        if not (1 <= height <= _LARGEST and 1 <= width <= _LARGEST):
            raise DatasetError(f"{path}: frames of {height}x{width}, expected at most {_LARGEST}x{_LARGEST}.")
        frames = VideoFrames(path, height, width, 0)
        try:
            return VideoSize(height, width, len(frames))
        finally:
            frames.close()
    except EpisodeError as error:
        raise DatasetError(str(error)) from error
