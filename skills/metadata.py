"""`metadata.json`: what a skill on disk says of itself, and how it is changed without losing what others wrote."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from copy import deepcopy
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, cast

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    StrictBool,
    StrictStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from foundation.errors import BtruntimeError
from foundation.files import confined
from skills.documents import read_object, write_object
from skills.locks import locked

METADATA_NAME = "metadata.json"
SkillType = Literal["learned", "replay", "poses"]
ChunkMode = Literal["blend", "ensemble", "receding"]


class MetadataError(BtruntimeError):
    """A `metadata.json` cannot be read, or says something that it may not say."""


def _is_number(value: object) -> object:
    """Let numbers through; `True`, "1" and NaN are none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("expected a number")
    try:
        finite = math.isfinite(value)
    except OverflowError:
        finite = False
    if not finite:
        raise ValueError("expected a finite number")
    return value


Number = Annotated[float, BeforeValidator(_is_number)]
PositiveNumber = Annotated[float, BeforeValidator(_is_number), Field(gt=0)]
Whole = Annotated[int, BeforeValidator(_is_number)]
RelativePath = Annotated[StrictStr, Field(min_length=1)]
Pose = tuple[Number, ...]


class _Document(BaseModel):
    """A JSON object: null means the default, unknown fields are kept."""

    model_config = ConfigDict(frozen=True, extra="allow", protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _null_is_missing(cls, value: object) -> object:
        if not isinstance(value, dict):
            return value
        return {name: item for name, item in value.items() if item is not None or name not in cls.model_fields}


class Execution(_Document):
    """What every type of skill may say of its execution.

    Attributes:
        speed: time factor of arm and base together; 1.0 is as demonstrated.
        settle_tolerance_rad, hold_s: None for the robot's default.
        legacy_runtime: reproduce the hidden constants of the reference robot's executor.
    """

    speed: Annotated[Number, Field(ge=0.1, le=2.0)] = 1.0
    settle_tolerance_rad: PositiveNumber | None = None
    hold_s: Annotated[Number, Field(ge=0)] | None = None
    legacy_runtime: StrictBool = False


class _MovingExecution(Execution):
    """A type that may begin and end at a pose, in rad, one number per joint of the robot.

    Attributes:
        start_pose, end_pose: None for none. The length is checked against the robot, which is not known here.
        start_pose_time, end_pose_time: seconds for the move.
    """

    start_pose: Pose | None = None
    end_pose: Pose | None = None
    start_pose_time: PositiveNumber = 1.0
    end_pose_time: PositiveNumber = 1.0

    @field_validator("start_pose", "end_pose")
    @classmethod
    def _empty_is_none(cls, pose: Pose | None) -> Pose | None:
        return pose or None


class LearnedExecution(_MovingExecution):
    """A policy.

    Attributes:
        checkpoint: relative to the skill directory; None while the skill is in training.
        stats_file: relative to the skill directory; None for `dataset_stats.pt` beside the checkpoint.
        action_dim: None for what the checkpoint gives.
        duration: seconds after which the policy is stopped.
        progress_threshold, progress_hold_ticks: the skill is done when progress is above it for so many ticks.
        n_action_steps: steps of a chunk until the policy looks again; None looks at every frame.
        chunk_mode: how a new chunk follows the ones before it: "blend" fades it in, "ensemble" averages all that have
            an action for now, "receding" takes the newest alone after `n_action_steps`; None for "blend" where
            `n_action_steps` is given and "ensemble" where it is not.
        stall_s: the skill is stalled when its progress has not risen for so long; None never.
    """

    checkpoint: RelativePath | None = None
    stats_file: RelativePath | None = None
    action_dim: Annotated[Whole, Field(ge=1, le=64)] | None = None
    duration: PositiveNumber = 120.0
    progress_threshold: Annotated[Number, Field(ge=0)] = 0.95
    progress_hold_ticks: Annotated[Whole, Field(ge=1)] = 5
    n_action_steps: Annotated[Whole, Field(ge=1)] | None = None
    chunk_mode: ChunkMode | None = None
    stall_s: PositiveNumber | None = None


class ReplayExecution(_MovingExecution):
    """A recorded episode.

    Attributes:
        replay_file: relative to the skill directory; "" while there is none.
        replay_frequency: steps per second; None for the recorded timestamps.
    """

    replay_file: StrictStr = ""
    replay_frequency: PositiveNumber | None = None


class PosesExecution(Execution):
    """A list of joint poses, in rad.

    Attributes:
        poses: at least one number each; none while the skill is being made.
        steps: seconds per pose; None for as many as there are poses.
    """

    poses: tuple[Annotated[Pose, Field(min_length=1)], ...] = ()
    steps: PositiveNumber | None = None

    @property
    def pose_duration_s(self) -> float:
        """Seconds for each pose."""
        return self.steps if self.steps is not None else float(max(len(self.poses), 1))


_EXPECTED = {
    "dict_type": "an object",
    "int_from_float": "a whole number",
    "model_type": "an object",
    "string_too_short": "a text that is not empty",
    "string_type": "a text",
    "too_short": "a list that is not empty",
    "tuple_type": "a list",
}
_EXECUTION: Mapping[str, type[Execution]] = {
    "learned": LearnedExecution,
    "replay": ReplayExecution,
    "poses": PosesExecution,
}


class SkillMetadata(_Document):
    """A physical skill as its `metadata.json` describes it.

    Attributes:
        name: what people and language models call it; free text, "" where the directory name is to be used.
        inputs: name and type of each input.
    """

    name: StrictStr = ""
    type: SkillType
    guidelines: StrictStr = ""
    guidelines_when_running: StrictStr = ""
    inputs: dict[str, StrictStr] = Field(default_factory=dict)
    execution: LearnedExecution | ReplayExecution | PosesExecution = Field(
        default=cast(Any, None), validate_default=True
    )

    _source: dict[str, Any] = PrivateAttr(default_factory=dict)

    @field_validator("execution", mode="before")
    @classmethod
    def _execution_of_type(cls, value: object, info: ValidationInfo) -> Execution:
        kind = _EXECUTION.get(info.data.get("type", ""), LearnedExecution)
        return value if isinstance(value, kind) else kind.model_validate({} if value is None else value)

    @classmethod
    def from_document(cls, document: Mapping[str, Any], where: Path | str) -> SkillMetadata:
        """Parse a JSON object, which is remembered so that a rewrite keeps its order and its unknown fields.

        Raises:
            MetadataError: names `where`, the field, what was expected and what was found.
        """
        field = ""
        try:
            metadata = cls.model_validate({name: item for name, item in document.items() if name != "execution"})
            field, found = "execution", document.get("execution")
            execution = _EXECUTION[metadata.type].model_validate({} if found is None else found)
            metadata = cls.model_validate({**document, field: execution})
        except ValidationError as error:
            explained = _explained(error, field)
            raise MetadataError(f"{where}: {explained} Correct it, or remove it for its default.") from error
        metadata._source = deepcopy(dict(document))
        return metadata

    def to_document(self) -> dict[str, Any]:
        """The JSON object to write: what was read, with the fields that differ from it replaced."""
        # No warnings: a copy that was changed unchecked is checked by whoever writes it.
        now = self.model_dump(mode="json", exclude_unset=not self._source, warnings=False)
        if not self._source:
            return now
        before = SkillMetadata.model_validate(self._source).model_dump(mode="json")
        return _with_changes(self._source, before, now)


def load_metadata(path: Path) -> SkillMetadata:
    """Read a `metadata.json`. Creates nothing.

    Raises:
        MetadataError: missing, empty, cut short, larger than 1 MiB, not a JSON object, or a field is wrong.
    """
    return SkillMetadata.from_document(_read(path), path)


def save_metadata(path: Path, metadata: SkillMetadata) -> None:
    """Replace a `metadata.json`, or make it. Fields that btruntime does not know keep their place and value.

    Overwrites what came between reading and now; use `update_metadata` to change a file.

    Raises:
        MetadataError: the metadata was changed (`model_copy`) to something that it may not say.
    """
    document = metadata.to_document()
    SkillMetadata.from_document(document, path)
    with _lock(path):
        write_object(path, document)


def update_metadata(
    path: Path, change: Callable[[SkillMetadata], SkillMetadata] | None = None, **changes: Any
) -> SkillMetadata:
    """Change fields of a `metadata.json` as it is now on disk, under its lock.

    Args:
        path: the file.
        change: from the metadata on disk to the new one (see `model_copy`).
        changes: top-level fields; `execution` is a mapping of only the fields to change, None putting one back to
            its default.

    Returns:
        What is on disk now.

    Raises:
        MetadataError: the file cannot be read (it is then left alone), or the result would be wrong.
    """
    with _lock(path):
        document = _read(path)
        metadata = SkillMetadata.from_document(document, path)
        if change is not None:
            document = change(metadata).to_document()
        execution = changes.pop("execution", None)
        document |= changes
        if execution is not None:
            document["execution"] = {**(document.get("execution") or {}), **execution}
        updated = SkillMetadata.from_document(document, path)
        write_object(path, updated.to_document())
    return updated


def activate(
    skill_dir: Path,
    run_id: str,
    checkpoint: str,
    stats_file: str,
    *,
    fill: Mapping[str, Any] = MappingProxyType({}),
) -> SkillMetadata:
    """Switch a learned skill to the checkpoint of a run.

    Args:
        skill_dir: holds `metadata.json` and the run's directory.
        run_id: name of the run's directory.
        checkpoint: relative to the run's directory.
        stats_file: relative to the run's directory.
        fill: fields of `execution` that are written only where the file has none (null or missing); what a person
            set stays. None is for nothing to fill in.

    Raises:
        MetadataError: the skill is not a learned one, a file is missing, or the metadata cannot be read.
        PathEscapesError: a path leaves the run's directory.
    """
    path = skill_dir / METADATA_NAME
    run_dir = confined(skill_dir, run_id, what=f"{path}: the run to activate")
    files = {"checkpoint": checkpoint, "stats_file": stats_file}
    for field, name in files.items():
        if not confined(run_dir, name, what=f"{path}: {field} of run {run_id}").is_file():
            raise MetadataError(f"{path}: run {run_id} has no {field} {name}. Download the run again.")

    def switched(metadata: SkillMetadata) -> SkillMetadata:
        if not isinstance(metadata.execution, LearnedExecution):
            raise MetadataError(f"{path}: type is {metadata.type!r}, expected 'learned': only those have checkpoints.")
        known = metadata.execution
        # An empty pose is None, too, although the file has one.
        free = {field for field in fill if field not in known.model_fields_set or getattr(known, field) is None}
        update: dict[str, Any] = {field: f"{run_id}/{name}" for field, name in files.items()}
        update |= {field: value for field, value in fill.items() if field in free and value is not None}
        return metadata.model_copy(update={"execution": known.model_copy(update=update)})

    return update_metadata(path, switched)


def _read(path: Path) -> dict[str, Any]:
    return read_object(path, MetadataError, "Restore the file, or write it anew with name and type.")


def _lock(path: Path) -> AbstractContextManager[None]:
    if not path.parent.is_dir():
        raise MetadataError(f"{path.parent}: no such skill directory. Create the skill first.")
    return locked(path.with_name(".metadata.lock"))


def _with_changes(source: Mapping[str, Any], before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """`source` with the values of `now` where they differ from `before`; order and spelling of the rest are kept."""
    result = dict(source)
    for name, value in now.items():
        if name in before and before[name] == value:
            continue
        if name == "execution" and isinstance(before.get(name), dict):
            result[name] = _with_changes(source.get(name) or {}, before[name], value)
        else:
            result[name] = value
    return result


def _explained(error: ValidationError, prefix: str = "") -> str:
    """Every field that is wrong: which, what was found, what was expected."""
    sentences = []
    for problem in error.errors():
        field = ".".join(str(part) for part in (prefix, *problem["loc"]) if part != "") or "the document"
        if problem["type"] == "missing":
            sentences.append(f"{field} is missing.")
            continue
        expected = _EXPECTED.get(problem["type"], problem["msg"])
        for start in ("Value error, ", "expected ", "Input should be "):
            expected = expected.removeprefix(start)
        found = repr(problem["input"])
        sentences.append(f"{field} is {found if len(found) <= 80 else found[:77] + '...'}, expected {expected}.")
    return " ".join(sentences)
