"""Names of other programs, made into ours."""

from __future__ import annotations

import re

_LONGEST = 64


def valid_name(text: str) -> str:
    """`text` as a `hal.types.Name`: what a name may not hold becomes "_"; "" where nothing is left."""
    cleaned = re.sub(r"[^A-Za-z0-9_.\-]+", "_", text.strip()).lstrip(".-")[:_LONGEST]
    return cleaned if cleaned.strip("_") else ""


def without_suffix(name: str, *suffixes: str) -> str | None:
    """`name` without ".suffix" or "_suffix"; None where it ends in none of them."""
    for suffix in suffixes:
        for separator in "._":
            if name.endswith(separator + suffix) and len(name) > len(suffix) + 1:
                return name[: -len(suffix) - 1]
    return None
