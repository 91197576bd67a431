"""What an importer gives, and what it is asked with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, Protocol

from torch import Tensor

from foundation.errors import BtruntimeError
from policies.act.config import ACTConfig
from policies.importers.description import Description
from policies.normalize import Statistics
from policies.spec import InputSpec

Colour = Literal["rgb", "bgr"]


class PolicyImportError(BtruntimeError):
    """A checkpoint of another program is damaged, incomplete, or says too little of itself."""


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """What a person says of a checkpoint.

    Attributes:
        description: names, units and sizes that the checkpoint does not state; None for none.
        colour: channel order of the pictures that it was trained with; None for the format's default.
    """

    description: Description | None = None
    colour: Colour | None = None

    @property
    def heads(self) -> int | None:
        """Of the attention, where it was said."""
        return None if self.description is None else self.description.heads


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a policy came from, for `run.json`.

    Attributes:
        format: which program made it.
        source: the path that was imported, as it was given.
        files: SHA-256 of every file that was read, by its name beside the others.
        statistics: where the normalisation statistics came from.
    """

    format: str
    source: str
    files: Mapping[str, str]
    statistics: str


@dataclass(frozen=True, slots=True)
class ImportedPolicy:
    """A foreign policy in our form; nothing of it is on disk yet.

    Attributes:
        config: how the network is built.
        spec: what the policy sees and gives.
        statistics: in our units.
        state_dict: float32, of `ACTNetwork(config)`, statistics in it.
        provenance: where it came from.
        notes: sentences on what was guessed, changed or left out.
        step: of the training; 0 where nothing says it.
        execution: what the checkpoint suggests for a skill's `execution`.
    """

    config: ACTConfig
    spec: InputSpec
    statistics: Statistics
    state_dict: Mapping[str, Tensor]
    provenance: Provenance
    notes: tuple[str, ...]
    step: int = 0
    execution: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))


class Importer(Protocol):
    """Reads one program's checkpoints. `format` is its name for people."""

    format: str

    def read(self, path: Path, options: ImportOptions) -> ImportedPolicy:
        """The policy at `path`.

        Raises:
            PolicyImportError: it is damaged, incomplete, does not fit together, or more must be said of it.
            StatisticsError: its statistics are malformed or missing.
        """
        ...
