"""Writing a policy in the forms of other programs: the reference robot's checkpoint, and ONNX."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from secrets import token_hex
from types import MappingProxyType
from typing import Any, Literal

import torch
from torch import Tensor, nn

from foundation.errors import BtruntimeError
from foundation.files import fsync_dir, replacing
from policies.act.config import ACTConfig
from policies.act.model import ACTNetwork
from policies.checkpoint import Checkpoint
from policies.importers.reference import CAMERAS, IMAGE_SIZE, documented_action
from policies.manifest import STATISTICS_FILE, checkpoint_name, step_of
from policies.normalize import MeanStd, Statistics, error_line, save_statistics
from policies.spec import InputSpec

ONNX_OPSET = 14
ONNX_OUTPUT = "predicted_actions"
ONNX_STATE = "robot_state"

_FIRST_CONVOLUTION = "model.backbone.conv1.weight"
_SWAPPED = [2, 1, 0]
# What its loader builds whatever the checkpoint holds; a tensor that does not fit is left as it was made, at random.
_FIXED = (
    *("dim_model", "heads", "dim_feedforward", "encoder_layers", "decoder_layers", "vae_encoder_layers"),
    *("latent_dim", "use_vae", "backbone_width"),
)
_ONNX_PACKAGES = ("onnx",)


class ExportError(BtruntimeError):
    """A policy cannot be written in that form."""


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written.

    Attributes:
        files: all of it.
        notes: what to know before it is used.
    """

    files: tuple[Path, ...]
    notes: tuple[str, ...]


def export_reference(checkpoint: Checkpoint, directory: Path) -> Exported:
    """Write a checkpoint that the reference robot runs: the weights with their statistics, and `dataset_stats.pt`.

    Its robot feeds BGR pictures. A network that was trained with RGB is turned around: the input channels of its first
    convolution and the statistics of its pictures are swapped, so that its actions stay the same.

    Args:
        checkpoint: the policy.
        directory: is made; must not exist, or be empty.

    Raises:
        ExportError: the reference robot could not run this policy, or the directory cannot be written.
    """
    spec, config = checkpoint.spec, checkpoint.config
    if problems := reference_problems(config, spec):
        raise ExportError(f"{checkpoint.file.path} cannot run on the reference robot: {'; '.join(problems)}.")
    theirs = {ours: name for name, ours in CAMERAS.items()}
    renamed = config.model_copy(
        update={"cameras": tuple(theirs[camera] for camera in config.cameras), "normalise_in_model": True}
    )
    is_swapped = spec.colour == "rgb"
    statistics = Statistics(
        state=checkpoint.statistics.state,
        action=checkpoint.statistics.action,
        images=MappingProxyType(
            {theirs[name]: _turned(values, is_swapped) for name, values in checkpoint.statistics.images.items()}
        ),
    )
    state = {name: tensor for name, tensor in checkpoint.network.state_dict().items() if name.startswith("model.")}
    if is_swapped:
        state[_FIRST_CONVOLUTION] = state[_FIRST_CONVOLUTION][:, _SWAPPED]
    state |= ACTNetwork.buffers_of(statistics, renamed)
    weights = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
    name = checkpoint_name(step_of(checkpoint.file.path.name) or 0)

    def write(building: Path) -> None:
        torch.save(weights, building / name)
        save_statistics(building / STATISTICS_FILE, statistics)

    _build(directory, write)
    turned = "its input channels are swapped for that" if is_swapped else "as this policy was trained"
    notes = (
        f"it expects BGR pictures, {turned}; import it here with --colour bgr.",
        f"{', '.join(f'{camera} is {theirs[camera]}' for camera in config.cameras)}.",
        "that robot plays chunks 1.5 times faster than recorded and halves base velocities.",
    )
    return Exported((directory / name, directory / STATISTICS_FILE), notes)


def reference_problems(config: ACTConfig, spec: InputSpec) -> list[str]:
    """Why the reference robot could not run such a policy; empty when it could."""
    problems = []
    expected = documented_action(spec.action_dim)
    given, wanted = _kinds(spec.action), None if expected is None else _kinds(expected)
    if given != wanted:
        kinds = ", ".join(kind for kind, _ in given)
        problems.append(
            f"its action is {kinds}, expected six joint positions in rad, the last a gripper, then base velocities, "
            f"then progress and termination"
        )
    if sorted(spec.camera_names) != sorted(CAMERAS.values()):
        problems.append(
            f"it sees {', '.join(spec.camera_names) or 'nothing'}, expected {' and '.join(CAMERAS.values())}"
        )
    height, width = IMAGE_SIZE
    problems += [
        f"{camera.name} is {camera.width}x{camera.height}, expected {width}x{height}"
        for camera in spec.cameras
        if (camera.height, camera.width) != IMAGE_SIZE
    ]
    built = ACTConfig(chunk_size=1, state_dim=1, action_dim=1, cameras=())
    problems += [
        f"its {field} is {getattr(config, field)}, expected {getattr(built, field)}"
        for field in _FIXED
        if getattr(config, field) != getattr(built, field)
    ]
    return problems


def export_onnx(checkpoint: Checkpoint, path: Path, *, colour: Literal["rgb", "bgr"] = "rgb") -> Exported:
    """Write one ONNX file, normalisation in it.

    Inputs: `image_<camera>` (B, 3, H, W) in 0..1 per camera, named as on the reference robot where it has the camera,
    and `robot_state` (B, S); output: `predicted_actions` (B, C, A), both in physical units. What each number is stands
    in the file's metadata under `input_spec`.

    Args:
        checkpoint: the policy.
        path: of the file; one that is there is replaced.
        colour: channel order of the pictures that the file will be given.

    Raises:
        ExportError: a package is missing, the directory is, or the network cannot be expressed.
    """
    if missing := [package for package in _ONNX_PACKAGES if find_spec(package) is None]:
        raise ExportError(f'exporting to ONNX needs {", ".join(missing)}: pip install "btruntime[onnx]".')
    spec = checkpoint.spec
    names = {ours: name for name, ours in CAMERAS.items()}
    inputs = [f"image_{names.get(camera, camera)}" for camera in spec.camera_names] + [ONNX_STATE]
    model = _Flat(checkpoint.network, is_swapped=colour != spec.colour).eval().cpu()
    example = (
        *(torch.zeros(1, 3, camera.height, camera.width) for camera in spec.cameras),
        torch.zeros(1, spec.state_dim),
    )
    try:
        with replacing(path) as temporary:
            _trace(model, example, temporary, inputs)
            _describe(temporary, spec.model_copy(update={"colour": colour}))
    except OSError as error:
        raise ExportError(f"{path} cannot be written: {error.strerror or error}.") from error
    except RuntimeError as error:  # what torch makes of anything that it cannot express or write
        raise ExportError(f"{path}: the network cannot be exported: {error_line(error)}.") from error
    sizes = ", ".join(
        f"{name} (B, 3, {camera.height}, {camera.width})" for name, camera in zip(inputs, spec.cameras, strict=False)
    )
    return Exported((path,), (f"opset {ONNX_OPSET}; {colour.upper()} pictures in 0..1: {sizes or 'none'}.",))


class _Flat(nn.Module):
    """The network with one argument per input, as a graph has them."""

    def __init__(self, network: ACTNetwork, *, is_swapped: bool):
        super().__init__()
        self._network, self._is_swapped = network, is_swapped

    def forward(self, *inputs: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) per camera, then the state (B, S), to (B, C, A)."""
        *images, state = inputs
        return self._network.predict(state, [image.flip(1) if self._is_swapped else image for image in images])


def _trace(model: nn.Module, example: tuple[Tensor, ...], path: Path, inputs: list[str]) -> None:
    torch.onnx.export(
        model,
        example,
        path,
        input_names=inputs,
        output_names=[ONNX_OUTPUT],
        dynamic_axes={name: {0: "batch"} for name in (*inputs, ONNX_OUTPUT)},
        opset_version=ONNX_OPSET,
        dynamo=False,
    )


def _describe(path: Path, spec: InputSpec) -> None:
    onnx: Any = import_module("onnx")  # an extra: no type is known where it is not installed
    model = onnx.load(path)
    onnx.helper.set_model_props(model, {"input_spec": json.dumps(spec.model_dump(mode="json"))})
    onnx.checker.check_model(model)
    onnx.save(model, path)


def _turned(values: MeanStd, is_swapped: bool) -> MeanStd:
    return MeanStd(values.mean[_SWAPPED].copy(), values.std[_SWAPPED].copy()) if is_swapped else values


def _kinds(action: tuple[Mapping[str, Any], ...]) -> list[tuple[str, str]]:
    return [(str(dim.get("kind")), str(dim.get("unit"))) for dim in action]


def _build(directory: Path, write: Callable[[Path], None]) -> None:
    """Make a directory whole or not at all."""
    building = directory.with_name(f".{directory.name}.{token_hex(8)}")
    try:
        if directory.is_dir() and not any(directory.iterdir()):
            directory.rmdir()
        if directory.exists():
            raise ExportError(f"{directory} is there and not empty. Name a new directory.")
        building.mkdir(parents=True)
        try:
            write(building)
            building.rename(directory)
        except BaseException:
            shutil.rmtree(building, ignore_errors=True)
            raise
        fsync_dir(directory.parent)
    except OSError as error:
        raise ExportError(f"{directory} cannot be written: {error.strerror or error}.") from error
    except RuntimeError as error:  # torch turns most failures of the disk into this
        raise ExportError(f"{directory} cannot be written ({error_line(error)}). Is the disk full?") from error
