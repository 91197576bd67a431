"""A robot whose sensors show what was recorded, when it was recorded; it can be commanded, and does not follow."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np

from hal.clock import Clock
from hal.motion.config import GateConfig
from hal.robot import RobotError
from hal.types import Array, Frame, Image, Observation, RobotSpec, Setpoint

_AHEAD = 16
# A playback robot stays away from where it is sent: that is what it is for.
_ANY_DISTANCE = 1e9


@dataclass(frozen=True, slots=True)
class RecordedStep:
    """What a robot's sensors showed at one step of a recording. Times are seconds since its start.

    Attributes:
        at_s: when all of this had arrived.
        qpos, qvel: (J,) measured at `joints_s`.
        captured_s: by camera, when its frame was captured.
        base_velocity: (2,); None without a base.
        odometry: (5,); None without a base.
    """

    at_s: float
    qpos: Array
    qvel: Array
    joints_s: float
    captured_s: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    base_velocity: Array | None = None
    odometry: Array | None = None


FrameReader = Callable[[str, int], Image]
"""Gives the (H, W, 3) uint8 RGB frame of a camera at a step; may block; called by one thread at a time."""


class PlaybackRobot:
    """Shows the first step, as fresh as a live robot's, until `begin`; then the recording, once.

    Before `begin` its joints are where they are sent, as if the arm were ideal, so that a skill can move to its start
    pose; after it they are where they were. Frames are read ahead by a thread of their own, and where it does not keep
    up, the newest one that is there is shown, with its true age; on a virtual clock they are read when they are due.
    Any thread may call `read`, `write` and `begin`.

    Args:
        spec: of the robot that the recording could have come from.
        clock: the time it is played by.
        steps: at least one, in order of time.
        read_frame: where the frames come from.
        close_recording: called once, by `close`.

    Raises:
        RobotError: there is no step.
    """

    #: What a motion gate should think of a robot that goes its own way.
    gate_config = GateConfig(tracking_error_rad=_ANY_DISTANCE)

    def __init__(
        self,
        spec: RobotSpec,
        clock: Clock,
        steps: tuple[RecordedStep, ...],
        read_frame: FrameReader,
        *,
        close_recording: Callable[[], None] = lambda: None,
    ):
        if not steps:
            raise RobotError(f"there is nothing to play back on {spec.name}: the recording has no steps.")
        self.spec = spec
        self._clock, self._steps = clock, steps
        self._at_s = np.array([step.at_s for step in steps])
        self._frames = _Frames(spec.camera_names, len(steps), read_frame, ahead=not clock.virtual)
        self._close_recording = close_recording
        self._reading = threading.Lock()
        self._setpoint_qpos: Array = steps[0].qpos
        self._began_s: float | None = None
        self._started_s: float | None = None
        self._closed = False

    def start(self) -> None:
        """Read the first frames. Blocks for some of them."""
        self._frames.start()
        self._started_s = self._clock.now()

    def begin(self) -> None:
        """Let the recording run from now on. Idempotent."""
        if self._began_s is None:
            # Times of a recording count from its first step.
            self._began_s = self._clock.now() - float(self._at_s[0])

    @property
    def began_s(self) -> float | None:
        """When the recording's time was 0; None before `begin`."""
        return self._began_s

    @property
    def finished(self) -> bool:
        """Whether the last step was shown."""
        return self._began_s is not None and self._clock.now() >= self._began_s + float(self._at_s[-1])

    def read(self) -> Observation:
        """What had arrived at this time of the recording; before `begin` the first step, just measured.

        Raises:
            RobotError: it was not started, or a frame cannot be read.
        """
        if self._started_s is None or self._closed:
            raise RobotError(f"the playback of {self.spec.name} does not run; start it.")
        # One at a time, so that nobody is shown a frame that is newer than the time he came with.
        with self._reading:
            now_s = self._clock.now()
            if self._began_s is None:
                return self._waiting(now_s, self._started_s)
            row = max(int(np.searchsorted(self._at_s, now_s - self._began_s + 1e-9, side="right")) - 1, 0)
            return self._shown(row, now_s, self._began_s)

    def write(self, setpoint: Setpoint) -> None:
        """Followed at once until the recording runs, and not at all then."""
        if self._began_s is None:
            self._setpoint_qpos = setpoint.qpos

    def close(self) -> None:
        """Stop reading, and close the recording. Idempotent."""
        if not self._closed:
            self._closed = True
            self._frames.close()
            self._close_recording()

    def _waiting(self, now_s: float, since_s: float) -> Observation:
        first = self._steps[0]
        _, frames = self._frames.newest(0)
        images = {}
        for camera in self.spec.cameras:
            period_s = 1.0 / camera.rate_hz
            captured_s = since_s + np.floor((now_s - since_s) / period_s) * period_s
            images[camera.name] = Frame(frames[camera.name], float(captured_s))
        base = None if first.base_velocity is None else np.zeros(2)
        return Observation(
            stamp_s=now_s,
            qpos=self._setpoint_qpos,
            qvel=np.zeros_like(first.qvel),
            joints_s=now_s,
            images=MappingProxyType(images),
            base_velocity=base,
            odometry=first.odometry,
            base_s=now_s if base is not None else float("-inf"),
        )

    def _shown(self, row: int, now_s: float, began_s: float) -> Observation:
        step = self._steps[row]
        seen, frames = self._frames.newest(row)
        captured_s = self._steps[seen].captured_s
        images = {name: Frame(rgb, began_s + captured_s[name]) for name, rgb in frames.items()}
        return Observation(
            stamp_s=now_s,
            qpos=step.qpos,
            qvel=step.qvel,
            joints_s=began_s + step.joints_s,
            images=MappingProxyType(images),
            base_velocity=step.base_velocity,
            odometry=step.odometry,
            base_s=began_s + step.joints_s if step.base_velocity is not None else float("-inf"),
        )


class _Frames:
    """The frames of the steps around the one that is shown, read ahead so that `newest` never blocks."""

    def __init__(self, cameras: tuple[str, ...], count: int, read_frame: FrameReader, *, ahead: bool):
        self._cameras, self._count, self._read_frame, self._ahead = cameras, count, read_frame, ahead
        self._ready: deque[tuple[int, Mapping[str, Image]]] = deque()
        self._changed = threading.Condition()
        self._shown = 0
        self._failed: tuple[int, RobotError] | None = None  # at which step, and how
        self._closed = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Read the first step, and the next ones on a thread."""
        self._ready.append((0, self._read(0)))
        if self._ahead:
            self._thread = threading.Thread(target=self._run, name="playback", daemon=True)
            self._thread.start()

    def newest(self, row: int) -> tuple[int, Mapping[str, Image]]:
        """The last step up to `row` whose frames are there, and these; older ones are forgotten.

        Raises:
            RobotError: a frame up to `row` could not be read.
        """
        if not self._ahead and self._ready[-1][0] < row:
            self._ready.append((row, self._read(row)))
        with self._changed:
            if self._failed is not None and self._failed[0] <= row:
                raise self._failed[1]
            while len(self._ready) > 1 and self._ready[1][0] <= row:
                self._ready.popleft()
            self._shown = max(self._shown, row)
            self._changed.notify()
            return self._ready[0]

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        row = 1
        while row < self._count:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or len(self._ready) < _AHEAD)
                if self._closed:
                    return
                row = max(row, self._shown)  # what is past already need not be read
            try:
                frames = self._read(row)
            except RobotError as error:
                self._failed = row, error
                return
            with self._changed:
                self._ready.append((row, frames))
            row += 1

    def _read(self, row: int) -> Mapping[str, Image]:
        frames = {}
        for camera in self._cameras:
            try:
                frame = self._read_frame(camera, row)
            except Exception as error:  # whatever a reader of others raises
                raise RobotError(f"the recording cannot be played on: {error}") from error
            frame.setflags(write=False)
            frames[camera] = frame
        return MappingProxyType(frames)
