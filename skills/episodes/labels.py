"""`episode_N.json`: the part of an episode that people may change."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictStr, ValidationError

from skills.documents import read_object, write_object
from skills.episodes.header import EpisodeError

Outcome = Literal["success", "failure", "unlabelled"]
_REMEDY = "Correct or remove the file; without it the episode is unlabelled."


class EpisodeLabels(BaseModel):
    """Outcome, note and whether the episode is to be left out. Unknown fields are kept."""

    model_config = ConfigDict(frozen=True, extra="allow")

    outcome: Outcome = Field(default="unlabelled")
    note: StrictStr = ""
    trash: StrictBool = False


def labels_path(episode: Path) -> Path:
    """The labels beside an episode's `.h5`."""
    return episode.with_suffix(".json")


def load_labels(episode: Path) -> EpisodeLabels:
    """The labels of an episode; the defaults where it has none.

    Raises:
        EpisodeError: the file is there and cannot be understood.
    """
    path = labels_path(episode)
    if not path.exists():
        return EpisodeLabels()
    found = {name: value for name, value in read_object(path, EpisodeError, _REMEDY).items() if value is not None}
    try:
        return EpisodeLabels.model_validate(found)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise EpisodeError(f"{path}: {field} is {first['input']!r}: {first['msg']}. {_REMEDY}") from error


def save_labels(episode: Path, labels: EpisodeLabels) -> None:
    """Replace the labels of an episode."""
    write_object(labels_path(episode), labels.model_dump())
