"""What a dataset of another program offers to an import: episodes in our terms, frames where they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

from numpy.typing import NDArray

from foundation.errors import BtruntimeError
from hal.types import Image
from skills.episodes import EpisodeHeader


class DatasetError(BtruntimeError):
    """A dataset of another program cannot be read, or holds something that cannot be converted."""


@dataclass(frozen=True, slots=True)
class SourceEpisode:
    """One episode, converted; its frames are not read yet.

    Attributes:
        header: complete, `origin` with its notes included; `videos` empty.
        rows: (T, ...) by the path of the dataset: all of `skills.episodes.header.columns(header)` but the images.
        videos: by camera, an mp4 whose frame k belongs to step k; it is copied unchanged.
        frames: by camera, for those without a video: gives the T frames (H, W, 3) uint8 RGB, each time from the start.
        end_utc: None where it is not known.
    """

    header: EpisodeHeader
    rows: Mapping[str, NDArray[Any]]
    videos: Mapping[str, Path] = field(default_factory=lambda: MappingProxyType({}))
    frames: Mapping[str, Callable[[], Iterable[Image]]] = field(default_factory=lambda: MappingProxyType({}))
    end_utc: datetime | None = None


class DatasetSource(Protocol):
    """A dataset of another program, opened: its description was read and checked, its episodes were not.

    Attributes:
        format: with its version, for example "LeRobot v2.1".
        name: of the dataset; its directory's, usually.
        task: what the episodes show, in words; "" where it is not said.
        present: numbers of the episodes whose files are there, in order.
        missing: by number, what is not there of an episode that the dataset lists, as a sentence.
        notes: what the reader had to guess for all episodes, one sentence each.
    """

    format: str
    name: str
    task: str
    present: tuple[int, ...]
    missing: Mapping[int, str]
    notes: tuple[str, ...]

    def read(self, number: int) -> SourceEpisode:
        """Read and convert the numbers of one episode.

        Raises:
            DatasetError: a file is damaged, or does not hold what the description says.
        """
        ...
