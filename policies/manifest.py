"""`run.json`: what a training run made, readable without torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from foundation.errors import BtruntimeError
from foundation.files import confined, write_atomic
from policies.spec import InputSpec

MANIFEST_FILE = "run.json"
STATISTICS_FILE = "dataset_stats.pt"
_REMEDY = "Download the run again, or activate another one."
_CHECKPOINT_NAME = re.compile(r"act_policy_step_(\d{1,12})\.pth")


class ManifestError(BtruntimeError):
    """A `run.json` is missing, malformed, or does not list a file."""


class FileEntry(BaseModel):
    """One file of a run."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    size: Annotated[int, Field(ge=0)]


class RunManifest(BaseModel):
    """A training run: what its policy sees, how the network is built, and the files with their hashes.

    Attributes:
        config: the network's configuration (`policies.act.config.ACTConfig`), opaque here.
        hyperparameters, metrics: as the trainer wrote them, for people.
        software: version of the code that trained.
        origin: where an imported policy came from: format, source, hashes of its files, origin of its statistics.
        files: by name, relative to the run's directory.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    schema_version: Annotated[int, Field(alias="schema", ge=1, le=1)] = 1
    policy: Literal["act"] = "act"
    input_spec: InputSpec
    config: dict[str, Any]
    hyperparameters: dict[str, Any] = {}
    metrics: dict[str, Any] = {}
    software: str = ""
    origin: dict[str, Any] = {}
    files: dict[str, FileEntry]

    def checkpoints(self) -> dict[int, str]:
        """File names of the checkpoints by step, in order."""
        found = {step: name for name in self.files if (step := step_of(name)) is not None}
        return dict(sorted(found.items()))

    def entry(self, name: str) -> FileEntry:
        """Size and hash of a file.

        Raises:
            ManifestError: it is not listed.
        """
        if name not in self.files:
            raise ManifestError(
                f"{MANIFEST_FILE} does not list {name}; it lists {', '.join(self.files) or 'nothing'}. "
                f"Was the training killed while it saved? Use one of those."
            )
        return self.files[name]


@dataclass(frozen=True, slots=True)
class CheckpointFile:
    """Identity of a checkpoint file, for a cache: another file under the same name has another identity."""

    path: Path
    size: int
    mtime_ns: int
    inode: int

    @classmethod
    def of(cls, path: Path) -> CheckpointFile:
        """The file as it is now.

        Raises:
            FileNotFoundError: it does not exist.
        """
        found = path.resolve(strict=True)
        stat = found.stat()
        return cls(found, stat.st_size, stat.st_mtime_ns, stat.st_ino)


def checkpoint_name(step: int) -> str:
    """File name of the checkpoint of that training step."""
    return f"act_policy_step_{step}.pth"


def step_of(name: str) -> int | None:
    """The training step in a checkpoint's file name; None if it is no such name."""
    found = _CHECKPOINT_NAME.fullmatch(name)
    return int(found[1]) if found else None


def read_run(directory: Path) -> RunManifest:
    """Read and check the `run.json` of a run's directory.

    Raises:
        ManifestError: it is missing or malformed; the error names the field.
        PathEscapesError: a listed file would lie outside the directory.
    """
    path = directory / MANIFEST_FILE
    try:
        manifest = RunManifest.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise ManifestError(
            f"{path} is missing: without it nobody knows what the policy sees. "
            f"Download the run again, or import the checkpoint."
        ) from error
    except OSError as error:
        raise ManifestError(f"{path} cannot be read: {error.strerror}. {_REMEDY}") from error
    except ValidationError as error:
        raise ManifestError(f"{path}: {_sentence(error)} {_REMEDY}") from error
    for name in manifest.files:
        confined(directory, name, what=f"{path}: files")
    return manifest


def write_run(directory: Path, manifest: RunManifest) -> None:
    """Replace the `run.json` of a run's directory as a whole."""
    content = manifest.model_dump_json(by_alias=True, indent=2)
    write_atomic(directory / MANIFEST_FILE, content.encode() + b"\n")


def _sentence(error: ValidationError) -> str:
    """The first thing that is wrong, and how many more there are."""
    problems: list[Mapping[str, Any]] = [dict(problem) for problem in error.errors(include_url=False)]
    first = problems[0]
    field = ".".join(str(part) for part in first["loc"]) or "the file"
    more = f" ({len(problems) - 1} more)" if len(problems) > 1 else ""
    return f"{field}: {first['msg']}{more}."
