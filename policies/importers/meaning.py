"""The input spec and the statistics of a foreign policy, from what its format says and what a person says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
from pydantic import ValidationError

from foundation.described import first_problem
from policies.importers.description import EXAMPLE, CameraDescription, Description
from policies.importers.imported import Colour, PolicyImportError
from policies.normalize import STD_FLOOR, MeanStd, Statistics, StatisticsError
from policies.spec import CameraInput, InputSpec

_CONSTANT_STD = 1.5e-6
"""Other trainers floor standard deviations at 1e-6 or not at all: below this, the data never moved."""

_SMALLEST_STD = 1e-8


@dataclass(frozen=True, slots=True)
class Stated:
    """What a checkpoint and its format say; None or missing where they do not.

    Attributes:
        state_dim, action_dim, chunk_size: from the weights.
        cameras: names that the checkpoint uses, in its order, with height and width where it says them; None where
            not even the names are known.
        names: ours for cameras of the format.
        joints, action, data_frequency_hz, robot: of the format's documented layout.
        rate_source: a file that says data_frequency_hz; None where it is of that layout too.
    """

    state_dim: int
    action_dim: int
    chunk_size: int
    cameras: Mapping[str, tuple[int, int] | None] | None
    names: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    joints: tuple[str, ...] | None = None
    action: tuple[dict[str, Any], ...] | None = None
    data_frequency_hz: float | None = None
    robot: str | None = None
    rate_source: str | None = None


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a foreign policy sees and gives.

    Attributes:
        spec: in our units.
        sources: what the checkpoint calls each camera of the spec.
        state_scale, action_scale: the checkpoint's numbers times these are in our units.
        notes: what was guessed.
    """

    spec: InputSpec
    sources: tuple[str, ...]
    state_scale: tuple[float, ...]
    action_scale: tuple[float, ...]
    notes: tuple[str, ...]


def meaning(stated: Stated, said: Description | None, colour: Colour, where: str) -> Meaning:
    """Put together what a format states and a person says; the person wins.

    Raises:
        PolicyImportError: something is said by neither, or the two do not fit each other.
    """
    said = said or Description()
    notes: list[str] = []
    joints = said.joints or stated.joints
    frequency = said.data_frequency_hz or stated.data_frequency_hz
    robot = said.robot or stated.robot
    scales = said.scales(stated.state_dim)
    described, action_scale = _action(stated, said, joints, scales)
    missing = [
        f"{asked} ({what})"
        for asked, what, found in (
            ("robot", "its name", robot),
            ("joints", f"the names of its {stated.state_dim} state numbers, in order", joints),
            (
                "action",
                f'what its {stated.action_dim} action numbers are; "joints" if they are joint positions',
                described,
            ),
            ("cameras", "names, in order, with height and width", True if stated.cameras is not None else said.cameras),
            ("data_frequency_hz", "the rate of its demonstrations", frequency),
        )
        if found is None
    ]
    if missing or joints is None or described is None:
        raise PolicyImportError(
            f"{where} does not say: {'; '.join(missing)}. Say it in a JSON or YAML file and give it with --spec, for "
            f"example {EXAMPLE}."
        )
    for asked, found, expected in (
        ("joints names", len(joints), stated.state_dim),
        ("state_scale has", len(scales), stated.state_dim),
        ("action has", len(described), stated.action_dim),
    ):
        if found != expected:
            raise PolicyImportError(
                f"{where}: {asked} {found}, expected {expected} as in the weights. Correct it in the file of --spec."
            )
    if said.joints is None:
        notes.append(f"joints are called {', '.join(joints)}, as the format documents it.")
    if said.action is None:
        notes.append(f"the action is {', '.join(str(dim['name']) for dim in described)}, as the format documents it.")
    if said.data_frequency_hz is None:
        says = stated.rate_source or "the format documents it; the checkpoint does not say"
        notes.append(f"data_frequency_hz is {frequency:g}, as {says}.")
    cameras, sources = _cameras(stated, said, where, notes)
    try:
        spec = InputSpec(
            cameras=cameras,
            joint_names=joints,
            action=described,
            data_frequency_hz=frequency or 0.0,
            chunk_size=stated.chunk_size,
            colour=colour,
            robot=robot or "",
        )
    except ValidationError as error:
        raise PolicyImportError(f"{where}: {first_problem(error)}. Correct it in the file of --spec.") from error
    return Meaning(spec, sources, scales, action_scale, tuple(notes))


def in_our_units(statistics: Statistics, found: Meaning, where: str) -> tuple[Statistics, tuple[str, ...]]:
    """The statistics under the names and in the units of the spec, fit for running; and notes on what was changed.

    To normalise scaled numbers with scaled statistics gives what the network was trained on, so that no weight
    changes with the unit. Where a state or picture never varied in the data its deviation is raised: what the network
    saw then stays 0, and a joint that is slightly elsewhere is no longer an enormous number to it.

    Raises:
        StatisticsError: they are of another size.
    """
    spec = found.spec
    try:
        statistics.state.check_shape((spec.state_dim,), "observation.state")
        statistics.action.check_shape((spec.action_dim,), "action")
        images = {
            name: _raised(statistics.feature(f"observation.image_{source}"))
            for name, source in zip(spec.camera_names, found.sources, strict=True)
        }
        for name, raised in images.items():
            raised.values.check_shape((3, 1, 1), f"camera {name}")
    except StatisticsError as error:
        raise StatisticsError(f"{where}: {error}") from error
    state = _raised(statistics.state)
    notes = []
    if still := [joint for joint, raised in zip(spec.joint_names, state.where, strict=True) if raised]:
        notes.append(
            f"{', '.join(still)} never moved in the training data; the standard deviation is {STD_FLOOR:g} now, so "
            f"that a small difference stays small."
        )
    if dark := [name for name, raised in images.items() if any(raised.where)]:
        notes.append(f"pictures of {', '.join(dark)} never varied in the training data; was the camera dark?")
    scaled = Statistics(
        state=_scaled(state.values, found.state_scale),
        action=_scaled(statistics.action, found.action_scale),
        images=MappingProxyType({name: raised.values for name, raised in images.items()}),
    )
    return scaled, tuple(notes)


def positive(mean: Any, std: Any) -> MeanStd:
    """Statistics whose deviation may be 0 in the file; `in_our_units` looks at such small ones again.

    Raises:
        StatisticsError: a value is not finite or negative, or the shapes differ.
    """
    deviation = np.asarray(std, dtype=np.float32)
    return MeanStd(np.asarray(mean, dtype=np.float32), np.where(deviation == 0, np.float32(_SMALLEST_STD), deviation))


@dataclass(frozen=True, slots=True)
class _Raised:
    values: MeanStd
    where: tuple[bool, ...]


def _raised(values: MeanStd) -> _Raised:
    low = values.std <= _CONSTANT_STD
    return _Raised(MeanStd(values.mean, np.where(low, np.float32(STD_FLOOR), values.std)), tuple(low.ravel().tolist()))


def _scaled(values: MeanStd, scale: Sequence[float]) -> MeanStd:
    factors = np.asarray(scale, dtype=np.float64)
    return MeanStd((values.mean * factors).astype(np.float32), (values.std * factors).astype(np.float32))


def _action(
    stated: Stated, said: Description, joints: tuple[str, ...] | None, scales: tuple[float, ...]
) -> tuple[tuple[dict[str, Any], ...] | None, tuple[float, ...]]:
    if said.action is None:
        return stated.action, (1.0,) * stated.action_dim
    if said.action != "joints":
        return tuple(each.dimension() for each in said.action), tuple(each.scale for each in said.action)
    if joints is None:
        return None, ()
    return tuple(_position(joint, is_gripper=joint in said.grippers) for joint in joints), scales


def _position(joint: str, *, is_gripper: bool) -> dict[str, Any]:
    return {
        "name": joint,
        "kind": "gripper" if is_gripper else "joint_position",
        "unit": "rad",
        "target": joint,
        "low": None,
        "high": None,
    }


def _cameras(
    stated: Stated, said: Description, where: str, notes: list[str]
) -> tuple[tuple[CameraInput, ...], tuple[str, ...]]:
    """The cameras of the spec, and what the checkpoint calls them, in its order."""
    told = {camera.source or camera.name: camera for camera in said.cameras or ()}
    sources = tuple(told) if stated.cameras is None else tuple(stated.cameras)
    if unknown := [source for source in told if source not in sources]:
        raise PolicyImportError(
            f"{where}: cameras of --spec has the source {', '.join(unknown)}, the checkpoint has "
            f"{', '.join(sources) or 'no cameras'}."
        )
    cameras = []
    for source in sources:
        own = told.get(source) or CameraDescription(name=stated.names.get(source, source))
        height, width = (stated.cameras or {}).get(source) or (None, None)
        if own.height is not None and own.width is not None:
            height, width = own.height, own.width
        if height is None or width is None:
            raise PolicyImportError(
                f"{where} does not say how large the pictures of camera {source} are. Say height and width in cameras "
                f"of the file of --spec, for example {EXAMPLE}."
            )
        if own.name != source:
            notes.append(f"camera {source} is {own.name} here.")
        if own.height is None:
            notes.append(f"pictures of {own.name} are {width}x{height}, as the checkpoint or its format says.")
        cameras.append(CameraInput(name=own.name, height=height, width=width))
    return tuple(cameras), sources
