"""How a move is spread over its time."""

from __future__ import annotations


def minimum_jerk(share: float) -> float:
    """Progress 0..1 of a minimum-jerk move at the share 0..1 of its duration (Flash and Hogan 1985, eq. 4)."""
    return share**3 * (10.0 - 15.0 * share + 6.0 * share**2)
