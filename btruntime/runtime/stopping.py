"""Stopping the nodes of a tree, whatever they do about it, and saying whose fault an exception was."""

from __future__ import annotations

import traceback
from pathlib import Path

from py_trees.behaviour import Behaviour
from py_trees.common import Status


def stop_nodes(root: Behaviour, *, every: bool) -> list[str]:
    """Terminate and shut down the nodes of a tree.

    Args:
        root: of the tree; nothing ticks it.
        every: also those that are INVALID. A node that raised in its first tick has begun, and looks as if it had not.

    Returns:
        A sentence for each node that could not be stopped; the others are stopped nevertheless.
    """
    troubles = []
    if not every:
        try:
            root.stop(Status.INVALID)
        except Exception:  # noqa: BLE001 - the one it came from is found below
            every = True
    for node in list(root.iterate()):
        ran = node.status != Status.INVALID
        try:
            if every:
                node.stop(Status.INVALID)
            node.shutdown()
        except Exception as error:  # noqa: BLE001 - code of others; the other nodes must be stopped, too
            # A node that never began may well not know how to end.
            if ran:
                troubles.append(f"{node.name} could not be stopped: {blamed(error)}")
            node.status = Status.INVALID
    return troubles


def blamed(error: Exception) -> str:
    """An exception, and the line that it came from, as a sentence."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return f"{error!r}{where}."
