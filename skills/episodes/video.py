"""The frames of a video, by their number: one per step of the episode that it belongs to."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from hal.types import Image
from skills.episodes.header import EpisodeError

if TYPE_CHECKING:
    from av import VideoFrame

_AGAIN = "Import or copy it again."
_MAX_FRAMES = 1_000_000


class VideoFrames:
    """Random access to the frames of one mp4. Reading on from the last frame is cheap. One thread at a time.

    Args:
        path: the video; any codec that FFmpeg decodes.
        height: rows that every frame must have.
        width: columns that every frame must have.
        count: frames that there must be at least.

    Raises:
        EpisodeError: no such file, no video, frames missing, or frames of another size.
    """

    def __init__(self, path: Path, height: int, width: int, count: int):
        self._path, self._shape = path, (height, width, 3)
        self._container, self._stream = opened(path)
        try:
            self._times, self._keys, self._begin = _listed(path, self._container, self._stream)
        except BaseException:
            self._container.close()
            raise
        self._decoded: Iterator[VideoFrame] | None = None
        self._next = -1  # the frame that comes out of `_decoded` next, where one is decoded
        if len(self._times) < count:
            self.close()
            raise EpisodeError(f"{path}: {len(self._times)} frames, expected {count}, one per step. {_AGAIN}")

    def __len__(self) -> int:
        return len(self._times)

    def close(self) -> None:
        """Close the file. Idempotent."""
        self._decoded = None
        self._container.close()

    def frame(self, index: int) -> Image:
        """(H, W, 3) uint8 RGB, the frame of that number.

        Raises:
            EpisodeError: it cannot be decoded, or has another size than announced.
        """
        try:
            found = self._decode(index)
        except av_module().FFmpegError as error:
            raise EpisodeError(f"{self._path}: frame {index} cannot be decoded: {_said(error)}. {_AGAIN}") from error
        # Checked before it is converted: the conversion allocates what the frame claims to need.
        if (found.height, found.width, 3) != self._shape:
            raise EpisodeError(
                f"{self._path}: frame {index} is {found.height}x{found.width}, its episode says "
                f"{self._shape[0]}x{self._shape[1]}. {_AGAIN}"
            )
        rgb: Image = np.ascontiguousarray(found.to_ndarray(format="rgb24"))
        return rgb

    def _decode(self, index: int) -> VideoFrame:
        key = self._key_before(index)
        # Decoding on is cheaper than seeking, unless a key frame lies in between.
        if self._decoded is not None and key <= self._next <= index and (found := self._reach(index)) is not None:
            return found
        # Seeking goes by the order of decoding, so it may land on a key frame that is shown only later.
        for start in (self._times[key], self._begin):
            self._container.seek(start, stream=self._stream, backward=True)
            self._decoded = self._container.decode(self._stream)
            if (found := self._reach(index)) is not None:
                return found
        raise EpisodeError(f"{self._path}: frame {index} is not where the file lists it. {_AGAIN}")

    def _reach(self, index: int) -> VideoFrame | None:
        """That frame, if it comes out of what is being decoded."""
        assert self._decoded is not None
        wanted = self._times[index]
        for frame in self._decoded:
            if frame.pts == wanted:
                self._next = index + 1
                return frame
            if frame.pts is None or frame.pts > wanted:
                break
        self._decoded = None
        return None

    def _key_before(self, index: int) -> int:
        """The number of the last frame up to that one from which decoding can begin."""
        return self._keys[bisect_right(self._keys, index) - 1]


def opened(path: Path) -> tuple[Any, Any]:
    """The open container and its video stream.

    Raises:
        EpisodeError: no such file, or no video in it.
    """
    if not path.is_file():
        raise EpisodeError(f"{path}: no such file. {_AGAIN}")
    av = av_module()
    try:
        # What FFmpeg takes for a name may be a network address or a playlist of other files.
        container = av.open(str(path.resolve()), format="mp4", options={"protocol_whitelist": "file"})
    except (av.FFmpegError, OSError, ValueError) as error:
        raise EpisodeError(f"{path}: no mp4 video: {_said(error)}. {_AGAIN}") from error
    if not container.streams.video:
        container.close()
        raise EpisodeError(f"{path}: holds no video. {_AGAIN}")
    stream = container.streams.video[0]
    stream.thread_type = "AUTO"
    return container, stream


def av_module() -> ModuleType:
    """PyAV, loaded when a video is first read."""
    import av

    return av


def _listed(path: Path, container: Any, stream: Any) -> tuple[list[int], list[int], int]:
    """What is in the file, without decoding any of it.

    Returns:
        Presentation times of all frames in order, the numbers of those from which decoding can begin, and the
        earliest time of anything.
    """
    packets, begin = [], 0
    try:
        for packet in container.demux(stream):
            if packet.pts is None:
                continue
            begin = min(begin, packet.pts)
            # What an edit list cuts off is decoded, because later frames need it, and never comes out.
            if not packet.is_discard:
                packets.append((packet.pts, packet.is_keyframe))
            if len(packets) > _MAX_FRAMES:
                raise EpisodeError(f"{path}: more than {_MAX_FRAMES} frames. {_AGAIN}")
    except av_module().FFmpegError as error:
        raise EpisodeError(f"{path}: cannot be read: {_said(error)}. {_AGAIN}") from error
    packets.sort()
    times = [pts for pts, _ in packets]
    if not times or len(set(times)) != len(times):
        raise EpisodeError(f"{path}: holds no frames with a time of their own. {_AGAIN}")
    # The first frame may be no key frame: what it needs was cut off, and the demuxer knows where that is.
    return times, sorted({0, *(number for number, (_, key) in enumerate(packets) if key)}), begin


def _said(error: Exception) -> str:
    """What FFmpeg says, without its number and the name of the file."""
    return str(getattr(error, "strerror", None) or error)
