"""Saving and loading a trained network: weights, statistics and `run.json`, which belong together.

A checkpoint is a plain state dict under the reference robot's names. It is loaded strictly: a tensor too many, too
few or of another shape is refused by name, and so is a file whose hash is not the one in `run.json`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from foundation.errors import BtruntimeError
from foundation.files import replacing, sha256_of
from policies.act.config import ACTConfig
from policies.act.model import ACTNetwork
from policies.manifest import (
    MANIFEST_FILE,
    STATISTICS_FILE,
    CheckpointFile,
    FileEntry,
    ManifestError,
    RunManifest,
    checkpoint_name,
    read_run,
    write_run,
)
from policies.normalize import Statistics, StatisticsError, error_line, load_statistics, save_statistics
from policies.spec import InputSpec

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "CheckpointFile",
    "RunManifest",
    "RunNotes",
    "load",
    "load_weights",
    "misfits",
    "plain_state_dict",
    "read_run",
    "read_state_dict",
    "save",
]

_WRAPPERS = ("model_state_dict", "state_dict")
_PREFIXES = ("module.", "_orig_mod.")
_SHOWN = 4


class CheckpointError(BtruntimeError):
    """A checkpoint is damaged, incomplete, or not what its run says."""


@dataclass(frozen=True, slots=True)
class RunNotes:
    """What goes into `run.json` beside the files, for people to read. Values must be JSON; see `RunManifest`."""

    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    software: str = ""
    origin: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A loaded checkpoint; the network is in evaluation mode, its statistics filled in."""

    file: CheckpointFile
    network: ACTNetwork
    config: ACTConfig
    statistics: Statistics
    manifest: RunManifest

    @property
    def spec(self) -> InputSpec:
        return self.manifest.input_spec


def save(
    directory: Path,
    step: int,
    state_dict: Mapping[str, Tensor],
    statistics: Statistics,
    spec: InputSpec,
    config: ACTConfig,
    notes: RunNotes | None = None,
) -> Path:
    """Write checkpoint, statistics and `run.json` into `directory`, each as a whole, `run.json` last.

    Checkpoints that a former call saved here stay listed as long as their file exists.

    Args:
        directory: exists, and belongs to one run.
        step: training step, for the file's name.
        state_dict: of `ACTNetwork`; may come from a wrapped module.
        statistics: those in the network.
        spec: what the policy sees.
        config: how the network is built.
        notes: hyperparameters, metrics, version.

    Returns:
        The path of the checkpoint.

    Raises:
        CheckpointError: the parts do not fit each other, a weight is not finite, or the disk refuses the file.
        StatisticsError: the disk refuses the statistics.
    """
    notes = notes or RunNotes()
    path = directory / checkpoint_name(step)
    _check_agreement(config, spec, where=str(path))
    plain = plain_state_dict(state_dict, str(path))
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in plain.items()}
    _check_finite(weights, str(path))
    save_statistics(directory / STATISTICS_FILE, statistics)
    try:
        with replacing(path) as temporary:
            torch.save(weights, temporary)
    except (OSError, RuntimeError) as error:  # torch turns most failures of the disk into the second
        raise CheckpointError(
            f"{path} cannot be written ({error_line(error)}). Is the disk full? Free some space, and resume the run."
        ) from error
    written = {name: _entry(directory / name) for name in (STATISTICS_FILE, path.name)}
    manifest = RunManifest(
        input_spec=spec,
        config=config.model_dump(mode="json"),
        hyperparameters=dict(notes.hyperparameters),
        metrics=dict(notes.metrics),
        software=notes.software,
        origin=dict(notes.origin),
        files={**_still_there(directory), **written},
    )
    write_run(directory, manifest)
    return path


def load(path: Path, *, device: torch.device | str = "cpu") -> Checkpoint:
    """Load a checkpoint with all that belongs to it, checked against `run.json` beside it.

    Raises:
        CheckpointError: the file is damaged, incomplete, or another one than its run says.
        ManifestError: `run.json` is missing or malformed, or does not list the file.
        StatisticsError: the statistics are malformed or of other features.
    """
    manifest = read_run(path.parent)
    config = _config(manifest, path.parent / MANIFEST_FILE)
    _check_agreement(config, manifest.input_spec, where=str(path.parent / MANIFEST_FILE))
    for file in (path, path.parent / STATISTICS_FILE):
        _check_hash(file, manifest)
    statistics = load_statistics(path.parent / STATISTICS_FILE)
    network = ACTNetwork(config)
    try:
        network.set_statistics(statistics)
    except StatisticsError as error:
        raise StatisticsError(f"{path.parent / STATISTICS_FILE}: {error}") from error
    load_weights(network, read_state_dict(path), where=str(path))
    _check_statistics(network, statistics, path)
    return Checkpoint(CheckpointFile.of(path), network.to(device).eval(), config, statistics, manifest)


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint by name, on the CPU. Wrapped dicts are unwrapped, prefixes of wrappers dropped.

    Raises:
        CheckpointError: it is missing, empty, cut short, no checkpoint, or holds a weight that is not finite.
    """
    try:
        if path.stat().st_size == 0:
            raise CheckpointError(f"{path} is empty. Download it again, or use an earlier step.")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} does not exist. Download the run again, or activate another one.") from error
    except CheckpointError:
        raise
    except Exception as error:  # torch names no set of errors for a file that is not its own
        raise CheckpointError(
            f"{path} is damaged or no checkpoint ({error_line(error)}). Download it again, or use an earlier step."
        ) from error
    state = plain_state_dict(content, str(path))
    _check_finite(state, str(path))
    return state


def load_weights(network: nn.Module, state: Mapping[str, Tensor], *, where: str) -> None:
    """Fill a network; nothing missing, nothing left over. `where` names the file in the error.

    Raises:
        CheckpointError: names the tensors that are missing, unexpected, or of another shape.
    """
    if problems := misfits(network, state):
        raise CheckpointError(
            f"{where} does not fit the network of its {MANIFEST_FILE}: {'; '.join(problems)}. "
            f"Use the {MANIFEST_FILE} of the training that made it."
        )
    network.load_state_dict(dict(state), strict=True)


def misfits(network: nn.Module, state: Mapping[str, Tensor]) -> list[str]:
    """What keeps `state` from filling the network: tensors that are missing, unexpected, or of another shape."""
    expected = network.state_dict()
    problems = []
    if missing := [name for name in expected if name not in state]:
        problems.append(f"missing {_listed(missing)}")
    if unexpected := [name for name in state if name not in expected]:
        problems.append(f"unexpected {_listed(unexpected)}")
    misshapen = [
        f"{name} is {tuple(state[name].shape)}, expected {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in state and state[name].shape != tensor.shape
    ]
    if misshapen:
        problems.append(_listed(misshapen))
    return problems


def plain_state_dict(content: Any, where: str) -> dict[str, Tensor]:
    """The state dict inside what was saved, without the prefixes of wrappers. `where` names the file in the error.

    Raises:
        CheckpointError: it is no dict, or holds something else than tensors.
    """
    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping) or not content:
        raise CheckpointError(f"{where} holds a {type(content).__name__}, expected a dict of tensors.")
    plain = {}
    for name, tensor in content.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise CheckpointError(f"{where}: {name!r} is a {type(tensor).__name__}, expected a tensor.")
        plain[_unprefixed(name)] = tensor
    return plain


def _unprefixed(name: str) -> str:
    """Without what DistributedDataParallel and torch.compile put before it, in either order."""
    for _ in _PREFIXES:
        for prefix in _PREFIXES:
            name = name.removeprefix(prefix)
    return name


def _check_finite(state: Mapping[str, Tensor], where: str) -> None:
    bad = [name for name, tensor in state.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    if bad:
        raise CheckpointError(f"{where} holds weights that are not finite: {_listed(bad)}. The training diverged.")


def _check_hash(file: Path, manifest: RunManifest) -> None:
    entry = manifest.entry(file.name)
    if not file.is_file():
        raise CheckpointError(f"{file} does not exist, though {MANIFEST_FILE} lists it. Download the run again.")
    size = file.stat().st_size
    if size != entry.size:
        raise CheckpointError(f"{file} has {size} bytes, expected {entry.size}: cut short? Download it again.")
    if (found := sha256_of(file)) != entry.sha256:
        raise CheckpointError(
            f"{file} has SHA-256 {found[:12]}, {MANIFEST_FILE} says {entry.sha256[:12]}: it was changed or mixed up "
            f"with the file of another run. Download the run again."
        )


def _check_statistics(network: ACTNetwork, statistics: Statistics, path: Path) -> None:
    """Refuse a checkpoint that carries other statistics than the file beside it."""
    expected = ACTNetwork.buffers_of(statistics, network.config)
    state = network.state_dict()
    other = [name for name, tensor in expected.items() if name in state and not torch.equal(state[name], tensor)]
    if other:
        raise CheckpointError(
            f"{path} carries other statistics than the {STATISTICS_FILE} beside it: {_listed(other)}. "
            f"They are of different trainings; download the run again."
        )


def _check_agreement(config: ACTConfig, spec: InputSpec, *, where: str) -> None:
    if problems := config.disagreements(spec):
        raise CheckpointError(f"{where}: {'; '.join(problems)}.")


def _config(manifest: RunManifest, where: Path) -> ACTConfig:
    try:
        return ACTConfig.model_validate(manifest.config)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = ".".join(str(part) for part in first["loc"]) or "config"
        raise ManifestError(f"{where}: config.{name}: {first['msg']}.") from error


def _still_there(directory: Path) -> dict[str, FileEntry]:
    if not (directory / MANIFEST_FILE).exists():
        return {}
    return {name: entry for name, entry in read_run(directory).files.items() if (directory / name).is_file()}


def _entry(path: Path) -> FileEntry:
    return FileEntry(sha256=sha256_of(path), size=path.stat().st_size)


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
