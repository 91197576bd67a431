"""Checkpoints of the reference robot: `act_policy_step_<n>.pth` with `dataset_stats.pt` beside it.

The weights carry our names already. What its robot calls `camera_1` is our `main_camera`, `camera_2` our
`arm_camera`, by name: by alphabet they would swap.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from torch import Tensor

from foundation.files import sha256_of
from policies.act.config import buffer_name
from policies.importers.imported import Colour, ImportedPolicy, ImportOptions, PolicyImportError, Provenance
from policies.importers.meaning import Stated, in_our_units, meaning
from policies.importers.torch_file import read_content, read_tensors
from policies.importers.weights import MODEL, fitted, inferred_config, is_buffer
from policies.manifest import STATISTICS_FILE, step_of
from policies.normalize import MeanStd, Statistics, StatisticsError, load_statistics

CAMERAS: Mapping[str, str] = MappingProxyType({"camera_1": "main_camera", "camera_2": "arm_camera"})
"""Ours by the names of the reference robot."""

IMAGE_SIZE = (224, 224)
JOINTS = tuple(f"joint{number}" for number in range(1, 7))
ACTION_SIZES = (6, 8, 10)

_ROBOT = "reference"
_DECLARED_HZ = 30.0
_IMAGE = "buffer_observation_image_"
_STATE = "buffer_observation_state"
_INDEX = Path("data") / "dataset_metadata.json"
_INDEX_BYTES = 64 << 20
_NESTING = 4
_COLOUR: Colour = "rgb"


class ReferenceImporter:
    """See `policies.importers.imported.Importer`. A path is a checkpoint or a directory with some."""

    format = "reference robot"

    def read(self, path: Path, options: ImportOptions) -> ImportedPolicy:
        file, notes = chosen(path)
        state = read_tensors(file)
        weights = {name: tensor for name, tensor in state.items() if name.startswith(MODEL)}
        if strange := [name for name in state if name not in weights and not is_buffer(name)]:
            raise PolicyImportError(f"{file}: {strange[0]} is no tensor of such a checkpoint ({len(strange)} are not).")
        statistics, origin, more = _statistics(file, state)
        notes += more
        cameras = dict.fromkeys(sorted(statistics.images), IMAGE_SIZE)
        config = inferred_config(weights, cameras, str(file), heads=options.heads)
        frequency_hz, source = _frequency(file)
        found = meaning(
            Stated(
                state_dim=config.state_dim,
                action_dim=config.action_dim,
                chunk_size=config.chunk_size,
                cameras=cameras,
                names=CAMERAS,
                joints=JOINTS if config.state_dim == len(JOINTS) else None,
                action=documented_action(config.action_dim) if config.state_dim == len(JOINTS) else None,
                data_frequency_hz=frequency_hz,
                robot=_ROBOT,
                rate_source=source,
            ),
            options.description,
            options.colour or _COLOUR,
            str(file),
        )
        ours, changed = in_our_units(statistics, found, str(file))
        config = config.model_copy(update={"cameras": found.spec.camera_names})
        return ImportedPolicy(
            config=config,
            spec=found.spec,
            statistics=ours,
            state_dict=fitted(weights, config, ours, str(file)),
            provenance=Provenance(self.format, str(path), _hashes(file), origin),
            notes=(*notes, *found.notes, *changed, _about_colour(options.colour)),
            step=step_of(file.name) or 0,
        )


def chosen(path: Path) -> tuple[Path, list[str]]:
    """The checkpoint that a path means: itself, or the newest in a directory; and a note where there are others.

    Raises:
        PolicyImportError: there is none.
    """
    if path.is_file():
        return path, []
    found = sorted(checkpoints_in(path), key=lambda file: (step_of(file.name) or 0, str(file)))
    if not found:
        raise PolicyImportError(f"{path} has no act_policy_step_<n>.pth. Name the checkpoint itself.")
    others = len(found) - 1
    return found[-1], [f"{found[-1].name} was taken, the newest of {others + 1}; name another to import it."] * (
        others > 0
    )


def checkpoints_in(directory: Path) -> list[Path]:
    """The checkpoints in a directory and some levels below it."""
    found: list[Path] = []
    level = [directory]
    for _ in range(_NESTING):
        found += [
            file for place in level for file in place.glob("act_policy_step_*.pth") if step_of(file.name) is not None
        ]
        level = [below for place in level for below in place.iterdir() if below.is_dir() and not below.is_symlink()]
    return found


def documented_action(size: int) -> tuple[dict[str, Any], ...] | None:
    """The reference robot's action of that size; None where it has none."""
    if size not in ACTION_SIZES:
        return None

    def dim(
        name: str, kind: str, unit: str, target: str | None, ends: tuple[float | None, float | None]
    ) -> dict[str, Any]:
        return {"name": name, "kind": kind, "unit": unit, "target": target, "low": ends[0], "high": ends[1]}

    dims = [dim(joint, "joint_position", "rad", joint, (None, None)) for joint in JOINTS[:-1]]
    dims += [
        dim(JOINTS[-1], "gripper", "rad", JOINTS[-1], (None, None)),
        dim("base_linear", "base_velocity", "m/s", "linear", (None, None)),
        dim("base_angular", "base_velocity", "rad/s", "angular", (None, None)),
        dim("progress", "progress", "1", None, (0, 1)),
        dim("termination", "termination", "1", None, (0, 1)),
    ]
    return tuple(dims[:size])


def _about_colour(said: Colour | None) -> str:
    if said is not None:
        return f"the network is given {said.upper()} pictures, as you said."
    return (
        f"the network is given {_COLOUR.upper()} pictures: uploads are videos, and what is trained from videos sees "
        f"RGB. The robot that made it feeds BGR. If it was trained from .h5 files, or exported for that robot, it "
        f"sees BGR: import it with --colour bgr."
    )


def _statistics(file: Path, state: Mapping[str, Tensor]) -> tuple[Statistics, str, list[str]]:
    """The statistics, where they are from, and a note where checkpoint and file differ: the network holds its own."""
    beside = file.with_name(STATISTICS_FILE)
    stored = None
    if beside.is_file():
        read_content(beside)  # refuses what claims more than it holds
        stored = load_statistics(beside)
    inside = _inside(file, state)
    if inside is None:
        if stored is None:
            raise StatisticsError(
                f"{file} holds no statistics, and {beside.name} is not beside it: without them its numbers mean "
                f"nothing. Put the file of the same training there."
            )
        return stored, beside.name, []
    if stored is None:
        return inside, f"{file.name}, which holds them", []
    other = [name for name, values in inside.features().items() if not _agree(values, stored.features().get(name))]
    if other:
        return (
            inside,
            f"{file.name}, which holds them",
            [
                f"{beside.name} has other statistics of {', '.join(other)} than the checkpoint holds; the checkpoint's "
                f"are used. Is {beside.name} of another training?"
            ],
        )
    return inside, f"{file.name}, which holds them; {beside.name} agrees", []


def _agree(values: MeanStd, stored: MeanStd | None) -> bool:
    if stored is None or stored.mean.shape != values.mean.shape:
        return False
    pairs = ((values.mean, stored.mean), (values.std, stored.std))
    return all(np.allclose(ours, theirs, rtol=1e-4, atol=1e-6) for ours, theirs in pairs)


def _inside(file: Path, state: Mapping[str, Tensor]) -> Statistics | None:
    """The statistics that a checkpoint holds; None where it has none."""
    if not any(is_buffer(name) for name in state):
        return None
    cameras = [
        name[len(f"normalize_inputs.{_IMAGE}") : -len(".mean")]
        for name in state
        if name.startswith(f"normalize_inputs.{_IMAGE}") and name.endswith(".mean")
    ]
    action, targets = (
        _pair(file, state, f"{group}.buffer_action") for group in ("unnormalize_outputs", "normalize_targets")
    )
    if not _agree(action, targets):
        raise StatisticsError(
            f"{file}: normalize_targets and unnormalize_outputs hold different statistics of the action. They are of "
            f"different trainings; download the checkpoint again."
        )
    read = {f"normalize_inputs.{_IMAGE}{buffer_name(camera)}" for camera in cameras} | {
        f"normalize_inputs.{_STATE}",
        "unnormalize_outputs.buffer_action",
        "normalize_targets.buffer_action",
    }
    if strange := [name for name in state if is_buffer(name) and name.rpartition(".")[0] not in read]:
        raise PolicyImportError(f"{file}: unexpected {strange[0]}: statistics of something that no such policy sees.")
    return Statistics(
        state=_pair(file, state, f"normalize_inputs.{_STATE}"),
        action=action,
        images=MappingProxyType(
            {camera: _pair(file, state, f"normalize_inputs.{_IMAGE}{camera}") for camera in cameras}
        ),
    )


def _pair(file: Path, state: Mapping[str, Tensor], name: str) -> MeanStd:
    missing = [f"{name}.{part}" for part in ("mean", "std") if f"{name}.{part}" not in state]
    if missing:
        raise StatisticsError(f"{file}: missing {', '.join(missing)}. Download it again.")
    try:
        return MeanStd(state[f"{name}.mean"].float().numpy(), state[f"{name}.std"].float().numpy())
    except StatisticsError as error:
        raise StatisticsError(f"{file}: {name}: {error}") from error


def _frequency(file: Path) -> tuple[float, str | None]:
    """The rate of the recordings and who says it, where the checkpoint lies in its skill; else the documented one."""
    for directory in list(file.resolve().parents)[: _NESTING + 1]:
        index = directory / _INDEX
        try:
            with index.open("rb") as opened:
                content = json.loads(opened.read(_INDEX_BYTES))
            rate = content.get("data_frequency") if isinstance(content, dict) else None
        except (OSError, ValueError, RecursionError):
            continue
        if isinstance(rate, int | float) and not isinstance(rate, bool) and 0 < rate <= 1000:
            return float(rate), f"{index} says"
    return _DECLARED_HZ, None


def _hashes(file: Path) -> dict[str, str]:
    beside = file.with_name(STATISTICS_FILE)
    return {each.name: sha256_of(each) for each in (file, beside) if each.is_file()}
