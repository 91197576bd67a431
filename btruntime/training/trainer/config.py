"""Hyperparameters of the trainer. The descriptions are what command line and forms show as the explanation."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from foundation.errors import BtruntimeError
from policies.act.config import ACTConfig
from policies.spec import InputSpec

DEFAULT_PRESET = "act-default"
CPU_PRESET = "cpu"
# A few dozen real demonstrations are soon learned by heart: without strong augmentation and decay the error on others
# rises again after 1000 steps (measured on 15 episodes of 20 s), with them it stays where it is.
_CPU: Mapping[str, Any] = MappingProxyType(
    {
        "batch_size": 32,
        "max_steps": 2000,
        "learning_rate": 5e-4,
        "learning_rate_backbone": 5e-4,
        "weight_decay": 0.01,
        "dropout": 0.1,
        "ema_decay": 0.995,
        "augment_shift": 0.1,
        "augment_colour": 0.3,
        "validation_share": 0.1,
        "image_height": 96,
        "image_width": 128,
        "checkpoints": 8,
        "threads": 0,
        "n_action_steps": 10,
    }
)

Count = Annotated[int, Field(ge=1, le=10_000_000)]
Pixels = Annotated[int, Field(ge=32, le=2048)]
Layers = Annotated[int, Field(ge=1, le=64)]
Rate = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]


class ConfigError(BtruntimeError):
    """A hyperparameter is unknown or out of its range."""


class TrainerConfig(BaseModel):
    """Everything that decides what a training run makes of its data."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    chunk_size: Annotated[int, Field(ge=1, le=1000)] = Field(
        default=30,
        description="Future actions predicted per forward pass. Larger is smoother, smaller reacts faster. "
        "Hesitates: 50 to 80. Overshoots: 15 to 20.",
    )
    batch_size: Annotated[int, Field(ge=1, le=65_536)] = Field(
        default=96, description="Examples per gradient step and GPU. Larger is steadier and needs more memory."
    )
    max_steps: Count = Field(
        default=120_000,
        description="Gradient steps. More can improve, then overfits a small set: about 80,000 for 50 to 80 episodes, "
        "150,000 to 200,000 for long or complex tasks.",
    )
    learning_rate: Rate = Field(default=5e-5, description="Peak learning rate of the transformer.")
    learning_rate_backbone: Rate = Field(
        default=5e-5, description="Peak learning rate of the ResNet-18. Lower fine-tunes pretrained vision more gently."
    )
    weight_decay: Annotated[float, Field(ge=0, le=1)] = Field(
        default=1e-4, description="Decoupled weight decay of AdamW."
    )
    warmup_share: Share = Field(
        default=0.02, description="Share of the steps in which the learning rate rises linearly."
    )
    cosine_floor: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.1, description="Learning rate at the end, as a share of the peak; 1 keeps it constant."
    )
    gradient_clip: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(
        default=10.0, description="Largest norm of a gradient; larger ones are scaled down to it."
    )
    ema_decay: Share = Field(
        default=0.999,
        description="Checkpoints hold a moving average of the weights, which forgets with this rate per step; "
        "0 saves the weights themselves.",
    )
    kl_weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        default=10.0,
        description="Weight of the VAE's divergence. Larger makes demonstrations average, smaller copies styles.",
    )
    dropout: Share = Field(default=0.1, description="Share of activations that are dropped in training.")
    image_height: Pixels = Field(default=224, description="Rows of a frame as the policy sees it.")
    image_width: Pixels = Field(default=224, description="Columns of a frame as the policy sees it.")
    dim_model: Annotated[int, Field(ge=8, le=8192)] = Field(
        default=512, description="Size of a token in the transformer."
    )
    heads: Annotated[int, Field(ge=1, le=128)] = Field(default=8, description="Attention heads; must divide dim_model.")
    dim_feedforward: Annotated[int, Field(ge=8, le=65_536)] = Field(default=3200, description="Inner size of a layer.")
    encoder_layers: Layers = Field(default=4, description="Transformer encoder layers.")
    decoder_layers: Layers = Field(default=4, description="Transformer decoder layers.")
    vae_encoder_layers: Layers = Field(default=4, description="Layers of the VAE encoder, which only training uses.")
    backbone_width: Annotated[int, Field(ge=1, le=1024)] = Field(
        default=64, description="Channels of the first ResNet-18 stage; 64 is the published network."
    )
    backbone_norm: Literal["auto", "frozen", "batch"] = Field(
        default="auto",
        description="Batch normalisation of the ResNet-18: frozen keeps pretrained statistics, batch learns them. "
        "auto: frozen with backbone_weights, else batch.",
    )
    backbone_weights: Path | None = Field(
        default=None,
        description="File with pretrained ResNet-18 weights (torchvision's names); without it, from scratch.",
    )
    augment_shift: Annotated[float, Field(ge=0, le=0.25)] = Field(
        default=0.03, description="Frames are shifted at random by up to this share of their size; 0 switches it off."
    )
    augment_colour: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.1,
        description="Brightness, contrast and colour balance vary at random by about this share; 0 switches it off.",
    )
    validation_share: Annotated[float, Field(ge=0, le=0.5)] = Field(
        default=0.1, description="Share of the episodes that is held out to measure the error; 0 trains on all."
    )
    hold_out: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        default=(),
        description="Numbers of episodes that are kept from training and from the choice of the checkpoint, for "
        "'btruntime evaluate' to measure on.",
    )
    successes_only: bool = Field(default=False, description="Leave out episodes that are labelled as a failure.")
    checkpoints: Annotated[int, Field(ge=1, le=1000)] = Field(
        default=10, description="How often in the run the weights are validated and the run's state is saved."
    )
    keep_all_checkpoints: bool = Field(
        default=False, description="Keep every checkpoint; otherwise the best and the last one."
    )
    log_every: Count = Field(default=25, description="Steps between two progress reports.")
    num_workers: Annotated[int, Field(ge=0, le=64)] = Field(
        default=4, description="Threads that put batches together ahead of time; 0 does it in between."
    )
    threads: Annotated[int, Field(ge=0, le=1024)] = Field(
        default=0, description="CPU threads of the arithmetic; 0 leaves it to torch."
    )
    device: str = Field(
        default="auto", description="Where to train: auto, cpu, cuda, cuda:1.", pattern=r"^(auto|cpu|cuda(:\d+)?)$"
    )
    seed: Annotated[int, Field(ge=0, lt=2**31)] = Field(
        default=0, description="Seed of split, order, weights and noise."
    )
    save_minutes: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(
        default=10.0, description="Minutes of work that a crash can cost: the run's state is saved this often."
    )
    max_minutes: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = Field(
        default=None, description="Time budget. When it is used up, the run is validated, saved and ends as finished."
    )

    n_action_steps: Annotated[int, Field(ge=1, le=1000)] | None = Field(
        default=None,
        description="Actions of each chunk that the skill uses before it looks again, where its metadata.json does "
        "not say; empty for the robot's own choice. Training does not depend on it.",
    )

    @property
    def norm(self) -> Literal["frozen", "batch"]:
        """The backbone's normalisation with `auto` resolved."""
        if self.backbone_norm != "auto":
            return self.backbone_norm
        return "batch" if self.backbone_weights is None else "frozen"

    def network(self, spec: InputSpec) -> ACTConfig:
        """The network for that input.

        Raises:
            ConfigError: the sizes do not fit each other.
        """
        sizes = set(ACTConfig.model_fields) & set(TrainerConfig.model_fields) - {"backbone_norm"}
        try:
            return ACTConfig(
                **{name: getattr(self, name) for name in sizes},
                backbone_norm=self.norm,
                state_dim=spec.state_dim,
                action_dim=spec.action_dim,
                cameras=spec.camera_names,
            )
        except ValidationError as error:
            raise ConfigError(_sentence(error)) from error


# What may differ between a run and its continuation: none of it changes what a step computes.
RESUMABLE_CHANGES = frozenset(
    {
        "num_workers",
        "threads",
        "device",
        "max_minutes",
        "save_minutes",
        "log_every",
        "keep_all_checkpoints",
        "n_action_steps",
    }
)


def presets() -> Mapping[str, TrainerConfig]:
    """Named starting points.

    `act-default` are the reference's hyperparameters, for a GPU. `cpu` is what two CPU cores can do in well under half
    an hour. `demo` learns a simulated task of two small cameras in minutes; `demo-full` is the same for longer.
    """
    demo = TrainerConfig(
        batch_size=16,
        max_steps=1900,
        learning_rate=1e-3,
        learning_rate_backbone=1e-3,
        dropout=0.0,
        augment_shift=0.0,
        augment_colour=0.25,
        validation_share=0.05,
        warmup_share=0.05,
        cosine_floor=0.0,
        ema_decay=0.99,
        image_height=96,
        image_width=96,
        dim_model=128,
        heads=4,
        dim_feedforward=256,
        encoder_layers=2,
        decoder_layers=1,
        vae_encoder_layers=2,
        backbone_width=16,
        checkpoints=3,
        num_workers=0,
        # A second thread saves a fifth on two idle cores, and doubles the time where another program has one of them.
        threads=1,
        # 0.8 s of the demo's. Looking again at every frame gets stuck where the demonstrations paused.
        n_action_steps=12,
    )
    return MappingProxyType(
        {
            DEFAULT_PRESET: TrainerConfig(),
            CPU_PRESET: demo.model_copy(update=_CPU),
            "demo": demo,
            "demo-full": demo.model_copy(update={"max_steps": 6000, "ema_decay": 0.995, "threads": 0}),
        }
    )


def make_config(
    *, preset: str = DEFAULT_PRESET, values: Mapping[str, Any] | None = None, assignments: tuple[str, ...] = ()
) -> TrainerConfig:
    """A preset with some values changed.

    Args:
        preset: see `presets`.
        values: by field.
        assignments: "field=value" with the value as JSON, or as plain text where it is none.

    Raises:
        ConfigError: an unknown preset or field, or a value out of range; the error says what is allowed.
    """
    known = presets()
    if preset not in known:
        raise ConfigError(f"there is no preset {preset!r}; there is {', '.join(known)}.")
    changed = {**known[preset].model_dump(), **(values or {}), **dict(assigned(text) for text in assignments)}
    try:
        return TrainerConfig.model_validate(changed)
    except ValidationError as error:
        raise ConfigError(_sentence(error)) from error


def read_config(path: Path) -> TrainerConfig:
    """The configuration in a JSON file; `preset` in it names the starting point.

    Raises:
        ConfigError: the file cannot be read, or a value in it is wrong.
    """
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read as JSON: {error}.") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path} holds a {type(content).__name__}, expected an object of hyperparameters.")
    preset = content.pop("preset", DEFAULT_PRESET)
    try:
        return make_config(preset=str(preset), values=content)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def assigned(text: str) -> tuple[str, Any]:
    """Name and value of "field=value", the value as JSON, or as plain text where it is none.

    Raises:
        ConfigError: there is no "=".
    """
    name, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"{text!r} is no assignment, expected field=value, for example max_steps=80000.")
    try:
        return name.strip(), json.loads(value)
    except ValueError:
        return name.strip(), value


def _sentence(error: ValidationError) -> str:
    """All that is wrong, each with its field and what was found."""
    parts = []
    for problem in error.errors(include_url=False):
        name = ".".join(str(part) for part in problem["loc"]) or "hyperparameters"
        if problem["type"] == "extra_forbidden":
            parts.append(f"{name} is no hyperparameter; there are {', '.join(TrainerConfig.model_fields)}")
        else:
            parts.append(f"{name} is {problem['input']!r}: {problem['msg']}")
    return "; ".join(parts) + "."
