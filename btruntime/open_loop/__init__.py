"""Open-loop evaluation: how well a learned skill predicts recordings that it was not trained on.

Nothing moves: this says whether a policy has learned to tell from what it sees what a person would do. Whether it
then succeeds, only a robot or a simulated scene can tell (`btruntime.evaluate`).
"""

from btruntime.open_loop.baselines import Yardstick
from btruntime.open_loop.choice import OpenLoopRefusedError, OpenLoopStoppedError
from btruntime.open_loop.error import Trace
from btruntime.open_loop.evaluation import ActionName, OpenLoopReport, open_loop

__all__ = [
    "ActionName",
    "OpenLoopRefusedError",
    "OpenLoopReport",
    "OpenLoopStoppedError",
    "Trace",
    "Yardstick",
    "open_loop",
]
