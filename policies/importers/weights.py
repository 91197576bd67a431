"""From a state dict of theirs, renamed, to one that fills our network exactly."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from foundation.described import first_problem
from policies.act.config import ACTConfig
from policies.act.model import ACTNetwork
from policies.checkpoint import misfits
from policies.importers.imported import PolicyImportError
from policies.normalize import Statistics

MODEL = "model."
_BUFFER_GROUPS = ("normalize_inputs.", "normalize_targets.", "unnormalize_outputs.")
_DEFAULT_HEADS = 8
_SHOWN = 4


def is_buffer(name: str) -> bool:
    """Whether a tensor of that name is normalisation statistics."""
    return name.startswith(_BUFFER_GROUPS)


def inferred_config(
    state: Mapping[str, Tensor], cameras: Iterable[str], where: str, *, heads: int | None = None
) -> ACTConfig:
    """How the network of these weights is built, from their names and shapes.

    Args:
        state: under our names.
        cameras: their names here, in order.
        where: the file, for errors.
        heads: of the attention, which no shape tells; None for the usual 8.

    Raises:
        PolicyImportError: a tensor that tells a size is missing, or the sizes do not fit each other.
    """

    def size(name: str, axis: int, dims: int = 2) -> int:
        tensor = state.get(MODEL + name)
        if tensor is None or tensor.dim() != dims:
            found = "missing" if tensor is None else f"of shape {tuple(tensor.shape)}"
            raise PolicyImportError(
                f"{where}: {MODEL}{name} is {found}, expected {dims} dimensions: it tells a size of the network. Is "
                f"this the checkpoint of an ACT policy?"
            )
        return int(tensor.shape[axis])

    has_vae = any(name.startswith(f"{MODEL}vae_encoder") for name in state)
    sees = any(name.startswith(f"{MODEL}backbone.") for name in state)
    return made_config(
        {
            "chunk_size": size("decoder_pos_embed.weight", 0),
            "dim_model": size("action_head.weight", 1),
            "action_dim": size("action_head.weight", 0),
            "state_dim": size("encoder_robot_state_input_proj.weight", 1),
            "latent_dim": size("encoder_latent_input_proj.weight", 1),
            "dim_feedforward": size("encoder.layers.0.linear1.weight", 0),
            "encoder_layers": _layers(state, "encoder"),
            "decoder_layers": _layers(state, "decoder"),
            "vae_encoder_layers": _layers(state, "vae_encoder") if has_vae else 1,
            "use_vae": has_vae,
            "backbone_width": size("backbone.conv1.weight", 0, 4) if sees else 64,
            "cameras": tuple(cameras),
            "heads": heads or _DEFAULT_HEADS,
        },
        where,
    )


def made_config(values: Mapping[str, Any], where: str) -> ACTConfig:
    """The config with these values.

    Raises:
        PolicyImportError: they are out of range or do not fit each other.
    """
    try:
        return ACTConfig.model_validate(values)
    except ValidationError as error:
        raise PolicyImportError(f"{where}: no network can be built: {first_problem(error)}.") from error


def fitted(state: Mapping[str, Tensor], config: ACTConfig, statistics: Statistics, where: str) -> dict[str, Tensor]:
    """The whole state dict of our network: these weights, and the statistics.

    Args:
        state: weights under our names, without statistics.
        config: of the network.
        statistics: in our units.
        where: the file, for errors.

    Raises:
        PolicyImportError: a tensor is missing, left over, of another shape, or holds a number that is not finite.
        StatisticsError: the statistics are of other features or sizes.
    """
    # The sizes may come from a file that lies: on this device they cost nothing.
    with torch.device("meta"):
        network = ACTNetwork(config)
    whole = {**state, **ACTNetwork.buffers_of(statistics, config)}
    if problems := misfits(network, whole):
        raise PolicyImportError(
            f"{where} does not fit the network that it describes: {'; '.join(problems)}. It is incomplete, or not the "
            f"checkpoint of such a policy."
        )
    bad = [name for name, tensor in whole.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    if bad:
        more = f" and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else ""
        raise PolicyImportError(
            f"{where} holds weights that are not finite: {', '.join(bad[:_SHOWN])}{more}. Its training diverged; use "
            f"an earlier checkpoint."
        )
    return {name: whole[name] for name in network.state_dict()}


def _layers(state: Mapping[str, Tensor], stack: str) -> int:
    """How many layers a stack has; a gap in the count is for the strict check to find."""
    prefix = f"{MODEL}{stack}.layers."
    numbers = {name[len(prefix) :].partition(".")[0] for name in state if name.startswith(prefix)}
    return len(numbers)
