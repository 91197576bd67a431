"""Teach a robot a skill by demonstration, train a policy for it, run it as a behaviour tree.

`from btruntime import Agent` is the public name; it is resolved on first use, so that `import btruntime` is instant.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from btruntime.agent import Agent

__all__ = ["Agent"]


def __getattr__(name: str) -> object:
    if name == "Agent":
        from btruntime.agent import Agent

        return Agent
    if name == "__version__":
        from importlib.metadata import version

        return version("btruntime")
    raise AttributeError(f"module 'btruntime' has no attribute {name!r}")
