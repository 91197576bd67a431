"""Between a policy's opaque action dimensions and the robot's `ActionSpec`."""

from __future__ import annotations

from pydantic import ValidationError

from foundation.errors import BtruntimeError
from hal.motion import Resource
from hal.types import ActionDim, ActionKind, ActionSpec
from policies.spec import InputSpec


class ActionSpecError(BtruntimeError):
    """What a checkpoint says about its actions cannot be understood."""


def action_spec_of(spec: InputSpec) -> ActionSpec:
    """The action spec that a checkpoint's input spec carries.

    Raises:
        ActionSpecError: a dimension is malformed or of a kind that this version does not know.
    """
    try:
        return ActionSpec(dims=tuple(ActionDim.model_validate(dim) for dim in spec.action))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ActionSpecError(f"input_spec.action: {where}: {first['msg']}. Export the checkpoint again.") from None


def resources_of(spec: ActionSpec) -> list[Resource]:
    """What an action moves: arm, base, or both."""
    moves_arm = len(spec.indices(ActionKind.JOINT_POSITION, ActionKind.JOINT_VELOCITY, ActionKind.GRIPPER)) > 0
    moves_base = len(spec.indices(ActionKind.BASE_VELOCITY)) > 0
    return [Resource.ARM] * moves_arm + [Resource.BASE] * moves_base
