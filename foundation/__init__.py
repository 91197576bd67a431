"""What every other package stands on: the root of all errors, and writing files that survive a kill."""

from foundation.errors import BtruntimeError

__all__ = ["BtruntimeError"]
