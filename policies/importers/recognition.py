"""Which program made a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from policies.checkpoint import plain_state_dict
from policies.importers import lerobot, original, reference
from policies.importers.imported import Importer, PolicyImportError
from policies.importers.lerobot import LeRobotImporter
from policies.importers.original import OriginalImporter
from policies.importers.reference import ReferenceImporter
from policies.importers.torch_file import read_content
from policies.manifest import MANIFEST_FILE, STATISTICS_FILE

_TORCH = (".pth", ".pt", ".ckpt")
_KNOWN = (
    "what can be imported: a checkpoint of the reference robot (.pth, or the directory of a run), a directory of a "
    "LeRobot ACT policy (config.json, model.safetensors), and a checkpoint of the original ACT (.ckpt with "
    "dataset_stats.pkl beside it)"
)


def recognise(path: Path) -> Importer:
    """The importer for what is at `path`.

    Raises:
        PolicyImportError: nothing is there, or it is nothing that can be imported; the error says what can.
        CheckpointError: it holds something else than tensors.
    """
    if not path.exists():
        raise PolicyImportError(f"{path} does not exist.")
    directory = path if path.is_dir() else path.parent
    if (directory / MANIFEST_FILE).is_file():
        raise PolicyImportError(
            f"{directory} is a run of btruntime already, it has a {MANIFEST_FILE}: copy the directory into the skill "
            f'and use "btruntime train activate".'
        )
    if path.is_file() and path.suffix in _TORCH and path.name != STATISTICS_FILE:
        return _by_names(path)
    config = lerobot.directory_of(path) / lerobot.CONFIG
    if config.is_file() and (path.is_dir() or path.name in (lerobot.CONFIG, lerobot.WEIGHTS)):
        return _by_type(config)
    if path.is_dir():
        if reference.checkpoints_in(path):
            return _by_names(reference.chosen(path)[0])
        if any(path.glob("*.ckpt")):
            return _by_names(original.chosen(path))
    if path.name == lerobot.WEIGHTS:
        raise PolicyImportError(f"{path} has no {lerobot.CONFIG} beside it, which says what it sees. Download it too.")
    raise PolicyImportError(f"{path} is no checkpoint that is known here; {_KNOWN}.")


def _by_names(file: Path) -> Importer:
    names = plain_state_dict(read_content(file), str(file))
    if any(original.MARK in name for name in names):
        return OriginalImporter()
    if any(name.startswith("model.decoder.layers.") for name in names):
        return ReferenceImporter()
    raise PolicyImportError(f"{file} has tensors such as {next(iter(names))}, which no ACT policy has; {_KNOWN}.")


def _by_type(config: Path) -> Importer:
    content: Any = lerobot.read_object(config)
    kind = content.get("type") if isinstance(content, Mapping) else None
    if kind != "act":
        raise PolicyImportError(f"{config}: type is {kind!r:.60}, expected 'act': only such policies run here.")
    return LeRobotImporter()
