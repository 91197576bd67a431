"""One robot, one running tree, ticked at 25 Hz."""

from btruntime.runtime.pool import PolicyPool, inline_policies, process_policies
from btruntime.runtime.runtime import Runtime

__all__ = ["PolicyPool", "Runtime", "inline_policies", "process_policies"]
