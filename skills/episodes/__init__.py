"""Recorded demonstrations: one HDF5 file each, its writer, reader and recovery, and the index of a skill's `data/`.

The names below load h5py when they are first used, so that listing skills does not.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from skills.episodes.checking import check_episodes
    from skills.episodes.header import CameraShape, EpisodeError, EpisodeHeader, EpisodeStep, Origin
    from skills.episodes.index import EpisodeSummary, list_episodes, rebuild_index, recorded_seeds, set_labels
    from skills.episodes.labels import EpisodeLabels, Outcome
    from skills.episodes.progress import fill_progress
    from skills.episodes.reader import Episode
    from skills.episodes.recovery import Recovered, recover
    from skills.episodes.saving import save_episode
    from skills.episodes.writer import DiskFullError, EpisodeWriteError, EpisodeWriter, StepError

_HOME = {
    "CameraShape": "header",
    "DiskFullError": "writer",
    "Episode": "reader",
    "EpisodeError": "header",
    "EpisodeHeader": "header",
    "EpisodeLabels": "labels",
    "EpisodeStep": "header",
    "EpisodeSummary": "index",
    "EpisodeWriteError": "writer",
    "EpisodeWriter": "writer",
    "Origin": "header",
    "Outcome": "labels",
    "Recovered": "recovery",
    "StepError": "writer",
    "check_episodes": "checking",
    "fill_progress": "progress",
    "list_episodes": "index",
    "rebuild_index": "index",
    "recorded_seeds": "index",
    "recover": "recovery",
    "save_episode": "saving",
    "set_labels": "index",
}

__all__ = [
    "CameraShape",
    "DiskFullError",
    "Episode",
    "EpisodeError",
    "EpisodeHeader",
    "EpisodeLabels",
    "EpisodeStep",
    "EpisodeSummary",
    "EpisodeWriteError",
    "EpisodeWriter",
    "Origin",
    "Outcome",
    "Recovered",
    "StepError",
    "check_episodes",
    "fill_progress",
    "list_episodes",
    "rebuild_index",
    "recorded_seeds",
    "recover",
    "save_episode",
    "set_labels",
]


def __getattr__(name: str) -> Any:
    """Load the module that defines one of the public names."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
