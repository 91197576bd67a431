"""JSON files that people and other programs edit too: read with suspicion, written as a whole."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from foundation.errors import BtruntimeError
from foundation.files import write_atomic

MAX_BYTES = 1 << 20


def read_object(path: Path, error: type[BtruntimeError], remedy: str, *, max_bytes: int = MAX_BYTES) -> dict[str, Any]:
    """The JSON object in `path`, keys in their order. Never creates or changes a file.

    Args:
        path: the file.
        error: what to raise.
        remedy: what the reader of the error is to do.
        max_bytes: larger files are refused unread.

    Raises:
        BtruntimeError: as `error`: missing, empty, too large, not UTF-8, not JSON, not an object, or with a number
            that JSON does not know (NaN, infinity).
    """
    try:
        with path.open("rb") as file:
            content = file.read(max_bytes + 1)
    except OSError as cause:
        raise error(f"{path}: cannot be read: {cause.strerror or cause}. {remedy}") from cause
    if len(content) > max_bytes:
        raise error(f"{path}: larger than {max_bytes >> 10} KiB, which no such file should be. {remedy}")
    if not content.strip():
        raise error(f"{path}: empty, expected a JSON object. {remedy}")
    try:
        found = json.loads(content.decode("utf-8-sig"), parse_constant=_no_constant, parse_float=_finite)
    except UnicodeDecodeError as cause:
        raise error(f"{path}: not UTF-8 (byte {cause.start}), expected a JSON object. {remedy}") from cause
    except (ValueError, RecursionError) as cause:
        raise error(f"{path}: not valid JSON: {cause}. {remedy}") from cause
    if not isinstance(found, dict):
        raise error(f"{path}: a JSON {_kind(found)}, expected an object. {remedy}")
    return found


def write_object(path: Path, document: dict[str, Any]) -> None:
    """Replace `path` by the object, indented by 4, with a newline at the end."""
    write_atomic(path, encoded(document))


def encoded(document: dict[str, Any]) -> bytes:
    """The bytes of `write_object`."""
    text = json.dumps(document, indent=4, ensure_ascii=False, allow_nan=False) + "\n"
    try:
        return text.encode()
    except UnicodeEncodeError:  # Half of a surrogate pair: valid as a JSON escape, not as UTF-8.
        return (json.dumps(document, indent=4, allow_nan=False) + "\n").encode()


def _no_constant(literal: str) -> float:
    raise ValueError(f"{literal} is not a JSON number")


def _finite(literal: str) -> float:
    value = float(literal)
    if not math.isfinite(value):
        raise ValueError(f"{literal} is too large a number")
    return value


def _kind(value: object) -> str:
    names = {list: "array", str: "string", bool: "boolean", int: "number", float: "number", type(None): "null"}
    return names[type(value)]
