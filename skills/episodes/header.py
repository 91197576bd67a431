"""What an episode says of itself, one of its steps, and which datasets hold it (schema 1)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Annotated, Literal, NamedTuple

import numpy as np
from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from foundation.errors import BtruntimeError
from hal.types import ActionSpec, Array, Image, Name, Positive

SCHEMA = 1
ATTRIBUTES = ("robot", "data_frequency", "colour", "joint_names", "action", "start_utc", "source", "software")
OPTIONAL_ATTRIBUTES = ("scene_seed", "videos", "origin")
ODOMETRY_SIZE = 5
BASE_VELOCITY_SIZE = 2

Source = Literal["teleop", "policy", "import"]
Pixels = Annotated[int, Field(ge=1, le=8192)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class EpisodeError(BtruntimeError):
    """An episode file is not what it should be, or is asked for something that it does not hold."""


class CameraShape(NamedTuple):
    """Name and frame size of one recorded camera."""

    name: Name
    height: Pixels
    width: Pixels


class _VideoEntry(BaseModel):
    """A camera in the attribute `videos`."""

    name: Name
    height: Pixels
    width: Pixels
    sha256: Sha256


class Origin(BaseModel):
    """Where an imported episode came from.

    Attributes:
        format: of the dataset, with its version.
        dataset: its name.
        episode: its number there.
        notes: what the import had to change or to guess, one sentence each.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    format: str
    dataset: str
    episode: int
    notes: tuple[str, ...] = ()


class EpisodeHeader(BaseModel):
    """What is known before the first step, and is written first.

    Attributes:
        data_frequency_hz: steps per second that the recorder aims at.
        action: what each of the A numbers of an action means.
        has_base: the episode holds `cmd_vel` and `odom`.
        software: name and version of the program that recorded.
        scene_seed: of the simulated scene; None where there was none, or it is not known.
        videos: SHA-256 by camera, for the cameras whose frames are in an mp4 beside the episode, one frame per step.
        origin: for an imported episode.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    robot: Name
    data_frequency_hz: Positive
    joint_names: Annotated[tuple[str, ...], Field(min_length=1)]
    action: ActionSpec
    cameras: tuple[CameraShape, ...] = ()
    has_base: bool = False
    source: Source = "teleop"
    software: str
    start_utc: AwareDatetime
    scene_seed: Annotated[int, Field(ge=0, lt=1 << 63)] | None = None
    videos: Mapping[Name, Sha256] = Field(default_factory=dict)
    origin: Origin | None = None

    @model_validator(mode="after")
    def _unique_names(self) -> EpisodeHeader:
        for what, names in (("joint", self.joint_names), ("camera", self.camera_names)):
            if len(set(names)) != len(names):
                raise ValueError(f"two {what}s have the same name: {', '.join(names)}")
        if unknown := set(self.videos) - set(self.camera_names):
            raise ValueError(f"there is a video of {', '.join(sorted(unknown))}, which is no camera")
        return self

    @property
    def camera_names(self) -> tuple[str, ...]:
        return tuple(camera.name for camera in self.cameras)

    @property
    def video_cameras(self) -> tuple[CameraShape, ...]:
        """The cameras whose frames are in a video beside the file."""
        return tuple(camera for camera in self.cameras if camera.name in self.videos)

    @property
    def image_cameras(self) -> tuple[CameraShape, ...]:
        """The cameras whose frames are in the file itself."""
        return tuple(camera for camera in self.cameras if camera.name not in self.videos)

    def to_attributes(self) -> dict[str, object]:
        """The root attributes of the HDF5 file, cameras excepted: those are named by their datasets."""
        optional: dict[str, object] = {}
        if self.scene_seed is not None:
            optional["scene_seed"] = self.scene_seed
        if self.videos:
            optional["videos"] = json.dumps(
                [shape._asdict() | {"sha256": self.videos[shape.name]} for shape in self.video_cameras]
            )
        if self.origin is not None:
            optional["origin"] = self.origin.model_dump_json()
        return optional | {
            "schema": SCHEMA,
            "robot": self.robot,
            "data_frequency": self.data_frequency_hz,
            "colour": "rgb",
            "joint_names": list(self.joint_names),
            "action": self.action.model_dump_json(),
            "start_utc": utc_text(self.start_utc),
            "source": self.source,
            "software": self.software,
        }

    @classmethod
    def from_attributes(
        cls, attributes: Mapping[str, object], *, cameras: tuple[CameraShape, ...], has_base: bool, where: str
    ) -> EpisodeHeader:
        """The inverse of `to_attributes`.

        Args:
            attributes: the root attributes.
            cameras: as the datasets show them; those with a video are told by the attributes.
            has_base: as the datasets show it.
            where: the file, for the error.

        Raises:
            EpisodeError: an attribute is missing or wrong.
        """
        missing = [name for name in ATTRIBUTES if name not in attributes]
        if missing:
            raise EpisodeError(
                f"{where}: root attribute {', '.join(missing)} missing, expected {', '.join(ATTRIBUTES)}. "
                f"If another program wrote this file, remove it from here."
            )
        if attributes["colour"] != "rgb":
            raise EpisodeError(
                f"{where}: attribute colour is {attributes['colour']!r}, expected 'rgb'. Convert it, or remove it."
            )
        try:
            videos = _videos(attributes)
            origin = attributes.get("origin")
            return cls.model_validate(
                {
                    "robot": attributes["robot"],
                    "data_frequency_hz": attributes["data_frequency"],
                    "joint_names": tuple(str(name) for name in np.atleast_1d(np.asarray(attributes["joint_names"]))),
                    "action": json.loads(str(attributes["action"])),
                    "cameras": (*cameras, *(shape for shape, _ in videos)),
                    "videos": {shape.name: sha256 for shape, sha256 in videos},
                    "origin": None if origin is None else json.loads(str(origin)),
                    "has_base": has_base,
                    "source": attributes["source"],
                    "software": attributes["software"],
                    "start_utc": attributes["start_utc"],
                    "scene_seed": _plain(attributes.get("scene_seed")),
                }
            )
        except json.JSONDecodeError as error:
            raise EpisodeError(
                f"{where}: a root attribute (action, videos or origin) is not JSON: {error}. "
                f"The file was altered; remove it."
            ) from error
        except ValidationError as error:
            first = error.errors()[0]
            field_name = ".".join(str(part) for part in first["loc"]) or "header"
            raise EpisodeError(
                f"{where}: root attribute for {field_name} is {first['input']!r}: {first['msg']}. "
                f"The file was altered or written by another program; remove it."
            ) from error


@dataclass(frozen=True, slots=True)
class EpisodeStep:
    """One step: what was seen, and then what was commanded.

    Attributes:
        action: (A,) command of the leader; progress and termination are 0 until the end.
        applied_action: (A,) what was sent after the safety filter.
        qpos, qvel: (J,) follower, rad and rad/s.
        images: (H, W, 3) uint8 RGB by camera name.
        stale: by camera name, whether the frame repeats the one before.
        step_s, arm_s, image_s: seconds since the start of the episode: of the step, of the measurement of the
            joints, and of each frame.
        cmd_vel: (2,) linear x (m/s), angular z (rad/s); None without a base.
        odom: (5,) x, y (m), yaw (rad), linear x, angular z; None without a base.
    """

    action: Array
    applied_action: Array
    qpos: Array
    qvel: Array
    images: Mapping[str, Image] = field(default_factory=lambda: MappingProxyType({}))
    stale: Mapping[str, bool] = field(default_factory=lambda: MappingProxyType({}))
    step_s: float = 0.0
    arm_s: float = 0.0
    image_s: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    cmd_vel: Array | None = None
    odom: Array | None = None


@dataclass(frozen=True, slots=True)
class Column:
    """One dataset of the file: `shape` is that of a single step, `dtype` what NumPy calls it."""

    path: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def is_image(self) -> bool:
        return len(self.shape) == 3


def image_path(camera: str) -> str:
    """Dataset of a camera's frames."""
    return f"images/{camera}"


def image_time_path(camera: str) -> str:
    """Dataset of the times of a camera's frames."""
    return f"timestamps/images/{camera}"


def stale_path(camera: str) -> str:
    """Dataset of a camera's repeated frames."""
    return f"stale/{camera}"


def columns(header: EpisodeHeader) -> Iterator[Column]:
    """Every dataset with one row per step, images first."""
    for camera in header.image_cameras:
        yield Column(image_path(camera.name), (camera.height, camera.width, 3), "uint8")
    joints, action = len(header.joint_names), header.action.size
    yield Column("action", (action,), "float64")
    yield Column("applied_action", (action,), "float64")
    yield Column("qpos", (joints,), "float64")
    yield Column("qvel", (joints,), "float64")
    yield Column("timestamps/step", (), "float64")
    yield Column("timestamps/arm", (), "float64")
    for camera in header.cameras:
        yield Column(image_time_path(camera.name), (), "float64")
        yield Column(stale_path(camera.name), (), "bool")
    if header.has_base:
        yield Column("cmd_vel", (BASE_VELOCITY_SIZE,), "float64")
        yield Column("odom", (ODOMETRY_SIZE,), "float64")


def _videos(attributes: Mapping[str, object]) -> list[tuple[CameraShape, str]]:
    """Camera and SHA-256 of each video.

    Raises:
        json.JSONDecodeError, ValidationError: the attribute is malformed.
    """
    text = attributes.get("videos")
    if text is None:
        return []
    found = TypeAdapter(list[_VideoEntry]).validate_python(json.loads(str(text)))
    return [(CameraShape(entry.name, entry.height, entry.width), entry.sha256) for entry in found]


def _plain(value: object) -> object:
    """A NumPy scalar as Python's; anything else as it is."""
    return value.item() if isinstance(value, np.generic) else value


def utc_text(moment: datetime) -> str:
    """ISO-8601 in UTC with milliseconds and a Z."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
