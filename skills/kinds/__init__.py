"""The kinds of skill, each a function that makes a fresh subtree.

py_trees nodes have one parent, so a skill is a factory: `build` makes new nodes each time it is called.
"""

from skills.kinds.build import SkillNotRunnableError, build, build_for_drawing

__all__ = ["SkillNotRunnableError", "build", "build_for_drawing"]
