"""What a person says of a checkpoint that does not say it itself: names, units, sizes and the rate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from foundation.described import read_described
from foundation.errors import BtruntimeError
from policies.spec import Name, Pixels

Limit = Annotated[float, Field(allow_inf_nan=False)]
Scale = Annotated[float, Field(gt=0, allow_inf_nan=False)]


EXAMPLE = (
    '{"robot": "so101", "joints": ["shoulder", "gripper"], "state_scale": 0.0174533, "action": "joints", '
    '"cameras": [{"name": "main_camera", "source": "top", "height": 480, "width": 640}], "data_frequency_hz": 30}'
)


class DescriptionError(BtruntimeError):
    """The file that describes a checkpoint cannot be used."""


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ActionDescription(_Strict):
    """One number of the action.

    Attributes:
        name, kind, unit, target, low, high: as in a skill's recordings (`input_spec.action`); the kind and what it
            moves are checked by whoever knows robots.
        scale: the checkpoint's numbers times this are in `unit`; above 0.
    """

    name: Name
    kind: Annotated[str, Field(max_length=64)]
    unit: Annotated[str, Field(max_length=16)]
    target: Name | None = None
    low: Limit | None = None
    high: Limit | None = None
    scale: Scale = 1.0

    def dimension(self) -> dict[str, Any]:
        """As it stands in `input_spec.action`."""
        return self.model_dump(mode="json", exclude={"scale"})


class CameraDescription(_Strict):
    """One camera.

    Attributes:
        name: as the robot here calls it.
        source: as the checkpoint calls it; None where it is `name`.
        height, width: of the picture that the network sees; None where the checkpoint says it.
    """

    name: Name
    source: Name | None = None
    height: Pixels | None = None
    width: Pixels | None = None


class Description(_Strict):
    """What a description file says; what it leaves out is taken from the checkpoint or its format.

    Attributes:
        robot: name of the robot that the data was recorded on.
        joints: names of the state's numbers, in order.
        state_scale: the state's numbers times this are in rad: one number above 0, or one per joint.
        action: each number of the action; or "joints": positions of the joints, in their order and scale.
        grippers: which of the joints are grippers, for `action: joints`.
        cameras: in the order that the checkpoint has them.
        data_frequency_hz: steps per second of the demonstrations.
        heads: of the attention; no checkpoint's tensors tell it.
    """

    robot: Name | None = None
    joints: Annotated[tuple[Name, ...], Field(min_length=1, max_length=256)] | None = None
    state_scale: Scale | Annotated[tuple[Scale, ...], Field(min_length=1, max_length=256)] = 1.0
    action: Literal["joints"] | Annotated[tuple[ActionDescription, ...], Field(min_length=1, max_length=256)] | None = (
        None
    )
    grippers: frozenset[Name] = frozenset()
    cameras: Annotated[tuple[CameraDescription, ...], Field(max_length=64)] | None = None
    data_frequency_hz: Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)] | None = None
    heads: Annotated[int, Field(ge=1, le=1024)] | None = None

    @model_validator(mode="after")
    def _usable(self) -> Description:
        if unknown := sorted(self.grippers - set(self.joints or ())):
            raise ValueError(f"grippers names {', '.join(unknown)}, which joints does not have")
        for what, names in (
            ("joints", list(self.joints or ())),
            ("cameras", [camera.name for camera in self.cameras or ()]),
            ("sources of cameras", [camera.source or camera.name for camera in self.cameras or ()]),
        ):
            if len(set(names)) != len(names):
                raise ValueError(f"two {what} have the same name: {', '.join(names)}")
        return self

    def scales(self, joints: int) -> tuple[float, ...]:
        """One scale per joint; another count than `joints` where the file lists another."""
        return (self.state_scale,) * joints if isinstance(self.state_scale, float) else self.state_scale


def load_description(path: Path) -> Description:
    """The description in a JSON or YAML file.

    Raises:
        DescriptionError: it cannot be read, or says something that no description says.
    """
    return read_described(path, Description, DescriptionError, example=EXAMPLE)
