"""ACT policies of LeRobot: a directory with `config.json`, `model.safetensors` and the processors' statistics."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from foundation.described import first_problem
from foundation.files import sha256_of
from policies.act.config import Layers, Size
from policies.importers.imported import Colour, ImportedPolicy, ImportOptions, PolicyImportError, Provenance
from policies.importers.meaning import Stated, in_our_units, meaning, positive
from policies.importers.safetensors_file import read_safetensors
from policies.importers.weights import MODEL, fitted, is_buffer, made_config
from policies.normalize import MeanStd, Statistics, StatisticsError
from policies.spec import Name

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
PRETRAINED = "pretrained_model"

_MAX_JSON_BYTES = 4 << 20
_PROCESSORS = ("policy_preprocessor.json", "policy_postprocessor.json")
_NORMALISERS = ("normalizer_processor", "unnormalizer_processor")
_STATE = "observation.state"
_ACTION = "action"
_GROUPS = ("normalize_inputs", "normalize_targets", "unnormalize_outputs")
_COLOUR: Colour = "rgb"
_STEP_DIRECTORY = re.compile(r"\d{1,12}")

Dimension = Annotated[int, Field(ge=1, le=8192)]
FeatureName = Annotated[str, Field(max_length=128)]

_Model = TypeVar("_Model", bound=BaseModel)


class _Loose(BaseModel):
    # Fields come and go between versions: those that are known are read, the others say nothing about the network.
    model_config = ConfigDict(frozen=True, extra="ignore")


class Feature(_Loose):
    """What the policy sees or gives."""

    type: Literal["STATE", "VISUAL", "ENV", "ACTION"]
    shape: Annotated[tuple[Dimension, ...], Field(min_length=1, max_length=3)]


class LeRobotConfig(_Loose):
    """The fields of `config.json` that fix the network; others than these values build another network."""

    type: Literal["act"]
    input_features: Annotated[dict[FeatureName, Feature], Field(max_length=64)]
    output_features: Annotated[dict[FeatureName, Feature], Field(max_length=64)]
    normalization_mapping: dict[str, Literal["MEAN_STD", "MIN_MAX", "IDENTITY"]] = {}
    chunk_size: Annotated[int, Field(ge=1, le=10_000)] = 100
    n_action_steps: Annotated[int, Field(ge=1, le=10_000)] | None = None
    n_obs_steps: Literal[1] = 1
    vision_backbone: Literal["resnet18"] = "resnet18"
    replace_final_stride_with_dilation: Literal[False] = False
    pre_norm: Literal[False] = False
    feedforward_activation: Literal["relu"] = "relu"
    dim_model: Size = 512
    n_heads: Size = 8
    dim_feedforward: Size = 3200
    n_encoder_layers: Layers = 4
    n_decoder_layers: Layers = 1
    use_vae: bool = True
    latent_dim: Size = 32
    n_vae_encoder_layers: Layers = 4
    temporal_ensemble_coeff: float | None = None

    def mode(self, feature: Feature) -> str:
        """How the feature is normalised."""
        return self.normalization_mapping.get(feature.type, "MEAN_STD")


class _Step(_Loose):
    registry_name: str = ""
    state_file: str | None = None


class _Processor(_Loose):
    steps: Annotated[tuple[_Step, ...], Field(max_length=256)] = ()


class LeRobotImporter:
    """See `policies.importers.imported.Importer`. A path is the directory, a file in it, or the one above it."""

    format = "LeRobot"

    def read(self, path: Path, options: ImportOptions) -> ImportedPolicy:
        directory = directory_of(path)
        where = str(directory / CONFIG)
        theirs = _parsed(directory / CONFIG, LeRobotConfig)
        state_dim, action_dim, cameras = _features(theirs, where)
        tensors = read_safetensors(directory / WEIGHTS, "the weights")
        weights = {
            name: tensor
            for name, tensor in tensors.items()
            if not is_buffer(name) and not name.endswith(".num_batches_tracked")
        }
        sources = {feature: _camera(feature) for feature in cameras}
        config = made_config(
            {
                "chunk_size": theirs.chunk_size,
                "state_dim": state_dim,
                "action_dim": action_dim,
                "cameras": tuple(sources.values()),
                "dim_model": theirs.dim_model,
                "heads": theirs.n_heads,
                "dim_feedforward": theirs.dim_feedforward,
                "encoder_layers": theirs.n_encoder_layers,
                "decoder_layers": theirs.n_decoder_layers,
                "vae_encoder_layers": theirs.n_vae_encoder_layers,
                "latent_dim": theirs.latent_dim,
                "use_vae": theirs.use_vae,
                "backbone_width": _width(weights),
            },
            where,
        )
        found = meaning(
            Stated(
                state_dim=state_dim,
                action_dim=action_dim,
                chunk_size=theirs.chunk_size,
                cameras={sources[feature]: size for feature, size in cameras.items()},
            ),
            options.description,
            options.colour or _COLOUR,
            where,
        )
        values, files, origin = _values(directory, theirs, tensors)
        statistics = _statistics(values, theirs, sources, str(directory))
        ours, changed = in_our_units(statistics, found, str(directory))
        config = config.model_copy(update={"cameras": found.spec.camera_names})
        notes = [*found.notes, *changed, *_notes(theirs, options)]
        return ImportedPolicy(
            config=config,
            spec=found.spec,
            statistics=ours,
            state_dict=fitted(weights, config, ours, str(directory / WEIGHTS)),
            provenance=Provenance(
                self.format,
                str(path),
                {name: sha256_of(directory / name) for name in dict.fromkeys((CONFIG, WEIGHTS, *files))},
                origin,
            ),
            notes=tuple(notes),
            step=_step(directory),
            execution={} if theirs.n_action_steps is None else {"n_action_steps": theirs.n_action_steps},
        )


def directory_of(path: Path) -> Path:
    """The directory with `config.json` that a path means."""
    directory = path.parent if path.is_file() else path
    return directory / PRETRAINED if (directory / PRETRAINED / CONFIG).is_file() else directory


def read_object(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        PolicyImportError: it is missing, too large, or no JSON.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_JSON_BYTES + 1)
        if len(content) > _MAX_JSON_BYTES:
            raise PolicyImportError(
                f"{path} is larger than {_MAX_JSON_BYTES >> 20} MiB, which none of these should be."
            )
        return json.loads(content)
    except (OSError, ValueError, RecursionError) as error:
        raise PolicyImportError(f"{path} cannot be read as JSON: {error}. Download it again.") from error


def _parsed(path: Path, model: type[_Model]) -> _Model:
    try:
        return model.model_validate(read_object(path))
    except ValidationError as error:
        raise PolicyImportError(f"{path}: {first_problem(error)}. No other policy can be imported.") from error


def _features(config: LeRobotConfig, where: str) -> tuple[int, int, dict[str, tuple[int, int]]]:
    """Sizes of state and action, and height and width of the pictures by the cameras' feature names, in order."""
    state, action = config.input_features.get(_STATE), config.output_features.get(_ACTION)
    if state is None or action is None or len(state.shape) != 1 or len(action.shape) != 1:
        raise PolicyImportError(
            f"{where}: input_features has {', '.join(config.input_features) or 'nothing'}, output_features "
            f"{', '.join(config.output_features) or 'nothing'}; expected {_STATE} and {_ACTION} of one dimension each."
        )
    cameras: dict[str, tuple[int, int]] = {}
    for name, feature in config.input_features.items():
        if name == _STATE:
            continue
        if feature.type != "VISUAL" or len(feature.shape) != 3 or feature.shape[0] != 3:
            raise PolicyImportError(
                f"{where}: the policy sees {name} ({feature.type}, shape {feature.shape}), expected pictures of shape "
                f"(3, height, width) beside {_STATE}. No robot here measures it."
            )
        cameras[name] = (feature.shape[1], feature.shape[2])
    return state.shape[0], action.shape[0], cameras


def _camera(feature: str) -> Name:
    return feature.removeprefix("observation.").removeprefix("images.")


def _width(weights: Mapping[str, Tensor]) -> int:
    first = weights.get(f"{MODEL}backbone.conv1.weight")
    return 64 if first is None or first.dim() != 4 else int(first.shape[0])


def _values(
    directory: Path, config: LeRobotConfig, tensors: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], tuple[str, ...], str]:
    """Every statistic as `<feature>.<statistic>`, the files they were in, and where that is, for people."""
    processors, states = [], []
    values: dict[str, Tensor] = {}
    for name in _PROCESSORS:
        if not (directory / name).is_file():
            continue
        processors.append(name)
        for step in _parsed(directory / name, _Processor).steps:
            if step.registry_name not in _NORMALISERS or step.state_file is None:
                continue
            if not step.state_file or "\0" in step.state_file or Path(step.state_file).name != step.state_file:
                raise PolicyImportError(
                    f"{directory / name}: state_file is {step.state_file!r:.200}, expected the name of a file beside "
                    f"it. Download the policy again."
                )
            values |= read_safetensors(directory / step.state_file, "its normalisation statistics")
            states.append(step.state_file)
    if values:
        return values, (*processors, *states), ", ".join(dict.fromkeys(states))
    return _buffers(config, tensors), tuple(processors), f"{WEIGHTS}, which holds them"


def _buffers(config: LeRobotConfig, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The statistics in the weights of versions before processors; a name there has "_" where the feature has "."."""
    values = {}
    for feature in (*config.input_features, *config.output_features):
        for group in _GROUPS:
            prefix = f"{group}.buffer_{feature.replace('.', '_')}."
            for name, tensor in tensors.items():
                if name.startswith(prefix):
                    values[f"{feature}.{name[len(prefix) :]}"] = tensor
    return values


def _statistics(
    values: Mapping[str, Tensor], config: LeRobotConfig, cameras: Mapping[str, str], where: str
) -> Statistics:
    features = {**config.input_features, **config.output_features}

    def of(name: str) -> MeanStd:
        feature = features[name]
        shape = (3, 1, 1) if feature.type == "VISUAL" else feature.shape
        return _mean_std(values, name, config.mode(feature), shape, where)

    return Statistics(
        state=of(_STATE),
        action=of(_ACTION),
        images=MappingProxyType({camera: of(feature) for feature, camera in cameras.items()}),
    )


def _mean_std(values: Mapping[str, Tensor], feature: str, mode: str, shape: tuple[int, ...], where: str) -> MeanStd:
    """Mean and deviation that normalise as the mode does.

    To bring lowest and highest to -1 and 1 is to take the middle for the mean and half the distance for the deviation.
    """
    if mode == "IDENTITY":
        return MeanStd(np.zeros(shape, np.float32), np.ones(shape, np.float32))
    names = ("mean", "std") if mode == "MEAN_STD" else ("min", "max")
    found = [values.get(f"{feature}.{name}") for name in names]
    if any(each is None for each in found):
        raise StatisticsError(
            f"{where}: no {' and '.join(names)} of {feature}, which the policy was trained with; statistics are of "
            f"{_listed(name.rpartition('.')[0] for name in values)}. Download the files that the processors name, or "
            f"the policy again."
        )
    first, second = (each.numpy() for each in found if each is not None)
    if first.shape != shape or second.shape != shape:
        raise StatisticsError(f"{where}: statistics of {feature} have shape {first.shape}, expected {shape}.")
    if mode == "MIN_MAX":
        first, second = (first + second) / 2, (second - first) / 2
    try:
        return positive(first, second)
    except StatisticsError as error:
        raise StatisticsError(f"{where}: {feature}: {error}") from error


def _listed(names: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(names)) or "nothing"


def _notes(config: LeRobotConfig, options: ImportOptions) -> list[str]:
    notes = []
    if options.description is None or options.description.state_scale == 1.0:
        notes.append(
            "joint angles are taken to be in rad; LeRobot's own arms are in degrees or percent: if so, say state_scale."
        )
    if config.temporal_ensemble_coeff is not None:
        notes.append("temporal ensembling was left out: chunks are executed as they come.")
    return notes


def _step(directory: Path) -> int:
    """The training step, where the directory is one of `checkpoints/<step>/pretrained_model`."""
    above = directory.resolve().parent.name if directory.name == PRETRAINED else ""
    return int(above) if _STEP_DIRECTORY.fullmatch(above) else 0
