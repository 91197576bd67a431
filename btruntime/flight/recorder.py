"""Writing a flight recording: never in the way of the loop, never over another file, readable after a kill."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from queue import Empty, SimpleQueue

from btruntime.events import RunResult, TickRecord
from btruntime.flight import lines
from foundation.errors import BtruntimeError
from foundation.files import fsync_dir

_ELSEWHERE = "Free some space, or choose another directory with --flights-dir."


class FlightError(BtruntimeError):
    """A flight recording cannot be written, or is not one."""


def new_flight_path(directory: Path, name: str) -> Path:
    """A path in `directory` (made if missing) that does not exist yet: the UTC time, then `name` made safe for a file.

    Args:
        directory: where recordings are kept.
        name: what runs, for example a skill id; free text is fine.
    """
    directory.mkdir(parents=True, exist_ok=True)
    safe = re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-.")[:80] or "run"
    stem = f"{datetime.now(UTC):%Y%m%dT%H%M%S.%f}Z_{safe}"
    path, count = directory / f"{stem}.jsonl", 1
    while path.exists():
        count += 1
        path = directory / f"{stem}-{count}.jsonl"
    return path


class FlightRecorder:
    """Writes one run to one new file, on a thread of its own.

    `tick` and `event` may be called by any thread and never wait: when the disk does not keep up, records are dropped
    and counted, and a line says how many. `close` waits for the disk. A killed process loses what the writer had not
    yet taken from the queue, usually a tick or two.
    """

    def __init__(self, path: Path, header: Mapping[str, object], *, capacity: int = 1000):
        """Create the file and write its first line.

        Args:
            path: a file that does not exist, for example from `new_flight_path`.
            header: what ran, on which robot, with which parameters; anything that can be said in JSON.
            capacity: records that may wait for the disk; the default is 40 s of a 25 Hz run.

        Raises:
            FlightError: the file exists or cannot be written.
        """
        self.path = path
        self._capacity = capacity
        self._queue: SimpleQueue[_Item] = SimpleQueue()
        self._lines = lines.Lines()
        self._dropped = 0
        self._dropped_lock = threading.Lock()
        self._closing = False
        self._error: Exception | None = None
        self._file = _create(path, lines.header(header))
        self._thread = threading.Thread(target=self._write_all, name="flight-recorder", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """Records that will not be in the file."""
        return self._dropped

    @property
    def problem(self) -> str | None:
        """Why the recording stopped before its end; None while all is well."""
        if self._error is None:
            return None
        return f"{self.path}: the recording of the run stopped: {_why(self._error)}. Free some space before the next."

    def tick(self, record: TickRecord) -> None:
        """Record one tick. Never waits."""
        self._put(record)

    def event(self, name: str, **data: object) -> None:
        """Record something that happened between ticks, with when it did (UTC). Never waits."""
        self._put(lines.event(name, data))

    def close(self, result: RunResult | None = None, *, timeout_s: float = 10.0) -> None:
        """Write what is queued, then `result` as the last line, and make it durable. Idempotent.

        Raises:
            FlightError: the disk refused something, or took longer than `timeout_s`.
        """
        if not self._closing:
            self._closing = True
            self._queue.put(_Close(result))
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            raise FlightError(f"{self.path}: the disk did not take the end of the recording within {timeout_s:g} s.")
        if self.problem is not None:
            raise FlightError(self.problem)

    def _put(self, item: TickRecord | bytes) -> None:
        # SimpleQueue never makes a writer wait; the bound is kept here, and two threads may pass it by one.
        if self._closing or self._error is not None or self._queue.qsize() >= self._capacity:
            with self._dropped_lock:
                self._dropped += 1
        else:
            self._queue.put(item)

    def _write_all(self) -> None:
        closed = False
        while not closed:
            batch = self._take()
            closed = isinstance(batch[-1], _Close)
            self._write(batch)
        try:
            os.fsync(self._file)
        except OSError as error:
            self._error = self._error or error
        finally:
            os.close(self._file)

    def _take(self) -> list[_Item]:
        """Everything that is queued, or the first to come; `_Close` is the last of all."""
        batch = [self._queue.get()]
        while not isinstance(batch[-1], _Close):
            try:
                batch.append(self._queue.get_nowait())
            except Empty:
                break
        return batch

    def _write(self, batch: list[_Item]) -> None:
        if self._error is not None:
            return
        try:
            _write_whole(self._file, b"".join(self._encoded(item) for item in batch))
        except Exception as error:  # noqa: BLE001 - whatever ends the writing must reach a person, through `problem`
            self._error = error

    def _encoded(self, item: _Item) -> bytes:
        before = self._lines.dropped(self._dropped)
        if isinstance(item, TickRecord):
            return before + self._lines.tick(item)
        if isinstance(item, bytes):
            return before + item
        return before + (self._lines.result(item.result) if item.result is not None else b"")


@dataclass(frozen=True)
class _Close:
    result: RunResult | None


_Item = TickRecord | bytes | _Close


def _create(path: Path, first_line: bytes) -> int:
    """A new file that holds the line, open for appending."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
    try:
        file = os.open(path, flags, 0o666)
    except FileExistsError:
        raise FlightError(f"{path}: exists; a flight recording is never overwritten. Take another name.") from None
    except OSError as error:
        raise FlightError(f"{path}: cannot record the run there: {_why(error)}. {_ELSEWHERE}") from error
    try:
        _write_whole(file, first_line)
        fsync_dir(path.parent)
    except OSError as error:
        os.close(file)
        path.unlink(missing_ok=True)
        raise FlightError(f"{path}: cannot record the run there: {_why(error)}. {_ELSEWHERE}") from error
    return file


def _write_whole(file: int, content: bytes) -> None:
    left = memoryview(content)
    while left:
        left = left[os.write(file, left) :]


def _why(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
