"""`recorder.yaml`: how episodes are recorded."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from foundation.errors import BtruntimeError


class RecorderConfigError(BtruntimeError):
    """`recorder.yaml` is not what it should be."""


class RecorderConfig(BaseModel):
    """How episodes are recorded. Topic names are for robots that have topics; the simulated one has none."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data_frequency: Annotated[float, Field(gt=0, le=200, description="steps per second")] = 30.0
    image_width: Annotated[int | None, Field(ge=1, le=8192, description="None: as the camera delivers")] = None
    image_height: Annotated[int | None, Field(ge=1, le=8192, description="None: as the camera delivers")] = None
    max_timesteps: Annotated[int, Field(ge=2, le=1_000_000, description="an episode stops by itself here")] = 1800
    base: Annotated[bool, Field(description="record base movement: the action has base and progress columns")] = True
    cameras: Annotated[tuple[str, ...] | None, Field(description="None: all that the robot has")] = None
    camera_topics: Annotated[dict[str, str], Field(description="topic by camera name")] = {}
    arm_state_topic: str | None = None
    leader_command_topic: str | None = None

    @field_validator("cameras")
    @classmethod
    def _different(cls, cameras: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for name in cameras or ():
            if (cameras or ()).count(name) > 1:
                raise ValueError(f"{name} is named twice")
        return cameras


def load_recorder_config(path: Path) -> RecorderConfig:
    """Read `recorder.yaml`.

    Raises:
        RecorderConfigError: it is missing, no YAML mapping, or a field is unknown or out of range.
    """
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecorderConfigError(f"{path}: cannot be read: {error.strerror}.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecorderConfigError(f"{path}: is not YAML: {str(error).splitlines()[0]}.") from None
    if not isinstance(content, dict | None):
        raise RecorderConfigError(f"{path}: is a {type(content).__name__}, expected fields such as data_frequency: 30.")
    try:
        return RecorderConfig.model_validate(content or {})
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        known = ", ".join(RecorderConfig.model_fields)
        raise RecorderConfigError(f"{path}: {field}: {first['msg']}. Fields are {known}.") from None
