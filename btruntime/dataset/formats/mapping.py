"""What a person says of a dataset that does not say it itself: names, units, and what each number means."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from btruntime.dataset.source import DatasetError
from foundation.described import read_described
from hal.types import ActionDim, ActionKind, Finite, Name

_MAX_VALUES = 256


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ActionMapping(_Strict):
    """What one number of an action means.

    Attributes:
        name: of the dimension; by default the dataset's.
        kind, unit, target, low, high: as in `hal.types.ActionDim`.
        scale: the dataset's numbers times this are in `unit`.
    """

    kind: ActionKind
    unit: Literal["rad", "m", "rad/s", "m/s", "1"]
    name: Name | None = None
    target: str | None = None
    scale: Finite = 1.0
    low: Finite | None = None
    high: Finite | None = None

    def dim(self, name: str) -> ActionDim:
        """The dimension, called `name` where the mapping has no name for it."""
        return ActionDim(
            name=self.name or name, kind=self.kind, unit=self.unit, target=self.target, low=self.low, high=self.high
        )


class FeatureMapping(_Strict):
    """Which columns hold the joints and the actions, where they are not called as usual."""

    state: str | None = None
    action: str | None = None
    velocity: str | None = None


class SourceMapping(_Strict):
    """What a mapping file says; what it leaves out is taken from the dataset.

    Attributes:
        robot: its name.
        joints: names of the state's numbers in order, those in `leave_out` not counted.
        state_scale: the state's numbers times this are in rad: one number, or one per joint.
        action: by the name that the dataset gives a number of the action, or by its position ("0") where it has none.
        cameras: the new name by the camera's name in the dataset (its last part, or the whole).
        leave_out: names (or positions) of numbers of state and action that are not wanted.
        features: names of columns.
    """

    robot: Name | None = None
    joints: Annotated[tuple[Name, ...], Field(min_length=1, max_length=_MAX_VALUES)] | None = None
    state_scale: Finite | Annotated[tuple[Finite, ...], Field(min_length=1, max_length=_MAX_VALUES)] = 1.0
    action: dict[str, ActionMapping] = Field(default_factory=dict)
    cameras: dict[str, Name] = Field(default_factory=dict)
    leave_out: frozenset[str] = frozenset()
    features: FeatureMapping = FeatureMapping()

    @model_validator(mode="after")
    def _usable(self) -> SourceMapping:
        if self.joints is not None and len(set(self.joints)) != len(self.joints):
            raise ValueError(f"two joints have the same name: {', '.join(self.joints)}")
        scales = [self.state_scale] if isinstance(self.state_scale, float | int) else list(self.state_scale)
        if 0 in [*scales, *(each.scale for each in self.action.values())]:
            raise ValueError("a scale is 0")
        return self

    def camera(self, name: str) -> str:
        """The name to give to a camera that the dataset calls by that name."""
        short = name.rpartition(".")[2]
        return self.cameras.get(name) or self.cameras.get(short) or short


def load_mapping(path: Path) -> SourceMapping:
    """The mapping in a JSON or YAML file.

    Raises:
        DatasetError: it cannot be read, or says something that no mapping says.
    """
    return read_described(path, SourceMapping, DatasetError)
