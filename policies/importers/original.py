"""Checkpoints of the original ACT: `policy_best.ckpt` with `dataset_stats.pkl` beside it.

Of its seven decoder layers only the first reaches the output, and the head that guesses padding is never used: both
are left out. It feeds pictures in 0..1 normalised with ImageNet's statistics, which stand in its code.
"""

from __future__ import annotations

import re
from pathlib import Path
from types import MappingProxyType

import numpy as np
from torch import Tensor

from foundation.files import sha256_of
from policies.importers.imported import Colour, ImportedPolicy, ImportOptions, PolicyImportError, Provenance
from policies.importers.meaning import Stated, in_our_units, meaning, positive
from policies.importers.torch_file import read_tensors
from policies.importers.unpickle import load_arrays
from policies.importers.weights import MODEL, fitted, inferred_config
from policies.normalize import MeanStd, Statistics, StatisticsError

STATISTICS_NAME = "dataset_stats.pkl"
MARK = "transformer.encoder.layers."
"""No other program's names contain it."""

_PREFERRED = ("policy_best.ckpt", "policy_last.ckpt")
_EPOCH = re.compile(r"policy_epoch_(\d{1,12})_")
_COLOUR: Colour = "rgb"
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# The first that fits, from the longest path down.
_NAMES = (
    ("transformer.encoder.", "encoder."),
    ("transformer.decoder.layers.0.", "decoder.layers.0."),
    ("transformer.decoder.norm.", "decoder.norm."),
    ("encoder.", "vae_encoder."),
    ("cls_embed.", "vae_encoder_cls_embed."),
    ("encoder_joint_proj.", "vae_encoder_robot_state_input_proj."),
    ("encoder_action_proj.", "vae_encoder_action_input_proj."),
    ("latent_proj.", "vae_encoder_latent_output_proj."),
    ("pos_table", "vae_encoder_pos_enc"),
    ("latent_out_proj.", "encoder_latent_input_proj."),
    ("input_proj_robot_state.", "encoder_robot_state_input_proj."),
    ("input_proj.", "encoder_img_feat_input_proj."),
    ("additional_pos_embed.", "encoder_1d_feature_pos_embed."),
    ("query_embed.", "decoder_pos_embed."),
    ("action_head.", "action_head."),
    ("backbones.0.0.body.", "backbone."),
)
_LEFT_OUT = re.compile(r"is_pad_head\..*|transformer\.decoder\.layers\.[1-9]\d*\..*|.*\.num_batches_tracked")


class OriginalImporter:
    """See `policies.importers.imported.Importer`. A path is a checkpoint or the directory of a training."""

    format = "original ACT"

    def read(self, path: Path, options: ImportOptions) -> ImportedPolicy:
        file = chosen(path)
        said = options.description
        weights = renamed(read_tensors(file), str(file))
        cameras = None if said is None else said.cameras
        sources = [camera.source or camera.name for camera in cameras or ()]
        config = inferred_config(weights, sources, str(file), heads=options.heads)
        found = meaning(
            Stated(
                state_dim=config.state_dim,
                action_dim=config.action_dim,
                chunk_size=config.chunk_size,
                cameras=None,
            ),
            said,
            options.colour or _COLOUR,
            str(file),
        )
        beside = file.with_name(STATISTICS_NAME)
        ours, changed = in_our_units(read_statistics(beside, found.sources), found, str(beside))
        config = config.model_copy(update={"cameras": found.spec.camera_names})
        return ImportedPolicy(
            config=config,
            spec=found.spec,
            statistics=ours,
            state_dict=fitted(weights, config, ours, str(file)),
            provenance=Provenance(
                self.format,
                str(path),
                {each.name: sha256_of(each) for each in (file, beside)},
                f"{STATISTICS_NAME}; pictures: ImageNet's, as its code has them",
            ),
            notes=(*found.notes, *changed, *_notes(config.heads, options)),
            step=_step(file.name),
        )


def chosen(path: Path) -> Path:
    """The checkpoint that a path means: itself, or the best of a directory.

    Raises:
        PolicyImportError: there is none.
    """
    if path.is_file():
        return path
    there = sorted(path.glob("*.ckpt"))
    for name in _PREFERRED:
        if path / name in there:
            return path / name
    if len(there) == 1:
        return there[0]
    raise PolicyImportError(
        f"{path} has {len(there)} checkpoints (*.ckpt) and no {_PREFERRED[0]}. Name the checkpoint itself."
    )


def renamed(state: dict[str, Tensor], where: str) -> dict[str, Tensor]:
    """The weights under our names, without those that reach no output.

    Raises:
        PolicyImportError: a name is none of the original's.
    """
    found, strange = {}, []
    for name, tensor in state.items():
        theirs = name.removeprefix(MODEL)
        if _LEFT_OUT.fullmatch(theirs):
            continue
        for old, new in _NAMES:
            if theirs.startswith(old):
                found[MODEL + new + theirs[len(old) :]] = tensor
                break
        else:
            strange.append(name)
    if strange:
        raise PolicyImportError(
            f"{where}: {strange[0]} is no tensor of the original ACT ({len(strange)} are not). Was it made by another "
            f"program?"
        )
    return found


def read_statistics(path: Path, cameras: tuple[str, ...]) -> Statistics:
    """The statistics of a `dataset_stats.pkl`, ImageNet's for the cameras.

    Raises:
        PolicyImportError: see `load_arrays`.
        StatisticsError: the file is missing, or lacks a feature.
    """
    if not path.is_file():
        raise StatisticsError(f"{path} is missing; it belongs beside the checkpoint. Copy it there from the training.")
    arrays = load_arrays(path)
    names = ("qpos_mean", "qpos_std", "action_mean", "action_std")
    if missing := [name for name in names if name not in arrays]:
        raise StatisticsError(f"{path}: no {', no '.join(missing)}; found {', '.join(arrays) or 'nothing'}.")
    flat = {name: arrays[name].ravel() for name in names}
    image = MeanStd(*(np.asarray(values, np.float32).reshape(3, 1, 1) for values in _IMAGENET))
    try:
        return Statistics(
            state=positive(flat["qpos_mean"], flat["qpos_std"]),
            action=positive(flat["action_mean"], flat["action_std"]),
            images=MappingProxyType(dict.fromkeys(cameras, image)),
        )
    except StatisticsError as error:
        raise StatisticsError(f"{path}: {error}") from error


def _notes(heads: int, options: ImportOptions) -> list[str]:
    notes = ["only the first decoder layer was taken: the others reach no output in the original."]
    if options.heads is None:
        notes.append(f"the attention has {heads} heads, the original's default; no tensor tells it.")
    if options.colour is None:
        notes.append(f"the network is given {_COLOUR.upper()} pictures, as in ALOHA's recordings; else --colour bgr.")
    return notes


def _step(name: str) -> int:
    """The epoch, which is the only count that the name has."""
    found = _EPOCH.match(name)
    return int(found[1]) if found else 0
