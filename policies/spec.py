"""What a policy sees and gives: `InputSpec`, which a checkpoint carries, and `PolicyInput`, one observation by it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from foundation.errors import BtruntimeError

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.\-]*$", max_length=64)]
Pixels = Annotated[int, Field(ge=1, le=8192)]
Image = NDArray[np.uint8]


class PolicyInputError(BtruntimeError):
    """An observation does not have what the policy was trained on."""


class CameraInput(BaseModel):
    """One camera as the policy sees it: the size is the one after resizing."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: Name
    height: Pixels
    width: Pixels


class InputSpec(BaseModel):
    """All that running a policy needs to know of its training data.

    Attributes:
        cameras: in the order of their tokens.
        state: parts of the robot's state that are joined to one vector.
        joint_names: order of `qpos`.
        action: the dimensions of the action, as `skills` wrote them; opaque here.
        data_frequency_hz: steps per second of the demonstrations.
        chunk_size: actions per forward pass.
        colour: channel order that the network was trained with; frames are handed over as RGB in any case.
        resize: filter that frames are resized with.
        robot: name of the robot that the data was recorded on.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    cameras: tuple[CameraInput, ...]
    state: tuple[Literal["qpos"], ...] = ("qpos",)
    joint_names: Annotated[tuple[Name, ...], Field(min_length=1, max_length=256)]
    action: Annotated[tuple[dict[str, Any], ...], Field(min_length=1, max_length=256)]
    data_frequency_hz: Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)]
    chunk_size: Annotated[int, Field(ge=1, le=10_000)]
    colour: Literal["rgb", "bgr"] = "rgb"
    resize: Literal["area"] = "area"
    robot: Name

    @model_validator(mode="after")
    def _unique_names(self) -> InputSpec:
        for what, names in (("camera", self.camera_names), ("joint", self.joint_names), ("state", self.state)):
            if len(set(names)) != len(names):
                raise ValueError(f"the same {what} twice: {', '.join(names)}")
        if not self.state:
            raise ValueError('state is empty, expected ["qpos"]')
        return self

    @property
    def camera_names(self) -> tuple[str, ...]:
        return tuple(camera.name for camera in self.cameras)

    @property
    def state_dim(self) -> int:
        return len(self.joint_names)

    @property
    def action_dim(self) -> int:
        return len(self.action)


@dataclass(frozen=True, slots=True)
class PolicyInput:
    """One observation for a policy.

    Attributes:
        state: (S,) float32.
        images: by camera name, (H, W, 3) uint8 RGB of any size; the policy resizes.
        oldest_capture_s: when the oldest camera frame in it was captured; without cameras, when the joints
            were measured. The chunk made from it starts at this time.
    """

    state: NDArray[np.float32]
    images: Mapping[str, Image]
    oldest_capture_s: float


def check_input(spec: InputSpec, inputs: PolicyInput) -> None:
    """Refuse an observation that `spec` does not describe.

    Raises:
        PolicyInputError: a camera is missing, a frame is not (H, W, 3) uint8, or the state has another size or
            holds a number that is not finite.
    """
    if inputs.state.shape != (spec.state_dim,):
        raise PolicyInputError(
            f"the state has shape {inputs.state.shape}, expected ({spec.state_dim},): {', '.join(spec.joint_names)}."
        )
    if not np.isfinite(inputs.state).all():
        bad = [name for name, value in zip(spec.joint_names, inputs.state, strict=True) if not np.isfinite(value)]
        raise PolicyInputError(f"the state has no finite value for {', '.join(bad)}: was it never measured?")
    if not np.isfinite(inputs.oldest_capture_s):
        raise PolicyInputError(f"the observation has capture time {inputs.oldest_capture_s}: a sensor never delivered.")
    for name in spec.camera_names:
        frame = inputs.images.get(name)
        if frame is None:
            seen = ", ".join(inputs.images) or "none"
            raise PolicyInputError(f"the policy needs camera {name!r}, the observation has {seen}.")
        check_frame(frame, what=f"the frame of camera {name!r}")


def check_frame(frame: Image, *, what: str) -> None:
    """Refuse what is not an (H, W, 3) uint8 picture; `what` names it in the error.

    Raises:
        PolicyInputError: it is not one.
    """
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or 0 in frame.shape:
        raise PolicyInputError(f"{what} is {frame.dtype} {frame.shape}, expected uint8 (height, width, 3).")
