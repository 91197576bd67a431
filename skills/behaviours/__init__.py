"""The leaves that skills are made of. Constructors touch no hardware, so that every tree can be drawn."""

from skills.behaviours.leaf import Leaf
from skills.behaviours.load import LoadEpisode, LoadPolicy, PolicySlot, RecordingSlot, SensorsReady
from skills.behaviours.move import MoveTo
from skills.behaviours.policy import PolicyLoop
from skills.behaviours.replay import ReplayLoop

__all__ = [
    "Leaf",
    "LoadEpisode",
    "LoadPolicy",
    "MoveTo",
    "PolicyLoop",
    "PolicySlot",
    "RecordingSlot",
    "ReplayLoop",
    "SensorsReady",
]
