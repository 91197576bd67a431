"""The shape of an ACT network: one model covers the reference robot's checkpoints, LeRobot's and small ones of ours."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from policies.spec import InputSpec, Name

Size = Annotated[int, Field(ge=1, le=65_536)]
Layers = Annotated[int, Field(ge=1, le=64)]


class ACTConfig(BaseModel):
    """Sizes and choices that fix the network and its loss.

    Attributes:
        cameras: names in the order of their tokens.
        backbone_width: channels of the first ResNet-18 stage; 64 is the published one, 16 trains on a laptop.
        backbone_norm: "frozen" keeps batch statistics as loaded, which pretrained weights need; "batch" learns
            them, which training from scratch needs. Both have the same tensor names and agree when evaluated.
        normalise_in_model: the state dict holds the statistics too, as on the reference robot; LeRobot's does not.
        loss_scale: "mean" averages the error over valid steps and action dimensions; "reference" only over valid
            steps, which is larger by the number of dimensions, so that a KL weight weighs that much less.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    chunk_size: Annotated[int, Field(ge=1, le=10_000)]
    state_dim: Annotated[int, Field(ge=1, le=256)]
    action_dim: Annotated[int, Field(ge=1, le=256)]
    cameras: tuple[Name, ...]
    dim_model: Size = 512
    heads: Size = 8
    dim_feedforward: Size = 3200
    encoder_layers: Layers = 4
    decoder_layers: Layers = 4
    vae_encoder_layers: Layers = 4
    latent_dim: Size = 32
    use_vae: bool = True
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    backbone_width: Annotated[int, Field(ge=1, le=1024)] = 64
    backbone_norm: Literal["frozen", "batch"] = "frozen"
    normalise_in_model: bool = True
    kl_weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 10.0
    loss_scale: Literal["mean", "reference"] = "mean"

    @model_validator(mode="after")
    def _fits(self) -> ACTConfig:
        if self.dim_model % self.heads:
            raise ValueError(f"dim_model {self.dim_model} is not a multiple of heads {self.heads}")
        if self.dim_model % 4:
            raise ValueError(f"dim_model {self.dim_model} is not a multiple of 4, which the position embedding needs")
        buffers = [buffer_name(camera) for camera in self.cameras]
        if len(set(buffers)) != len(buffers):
            raise ValueError(f"cameras {', '.join(self.cameras)} are not told apart in a state dict")
        return self

    def disagreements(self, spec: InputSpec) -> list[str]:
        """Sentences on where `spec` does not describe the inputs and outputs of this network; empty when it does."""
        pairs = (
            ("chunk_size", self.chunk_size, spec.chunk_size),
            ("state_dim", self.state_dim, spec.state_dim),
            ("action_dim", self.action_dim, spec.action_dim),
            ("cameras", self.cameras, spec.camera_names),
        )
        return [f"{name}: the model has {ours}, input_spec {theirs}" for name, ours, theirs in pairs if ours != theirs]


def buffer_name(camera: str) -> str:
    """How a camera is called in a state dict, where a dot would end the name."""
    return camera.replace(".", "_")
