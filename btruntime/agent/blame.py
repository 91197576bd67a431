"""Saying in one line where in a person's file something went wrong."""

from __future__ import annotations

import traceback
from pathlib import Path

_LONGEST = 300


def located(error: BaseException, path: Path) -> str:
    """`error` in one line, with the last line of `path` that it passed through, if any."""
    line = _line_in(error, path)
    return f"{path}: {brief(error)}" if line is None else f"{path}: line {line}: {brief(error)}"


def brief(error: BaseException) -> str:
    """Type and text of `error` without line breaks."""
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    text = " ".join(text.split())[:_LONGEST]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _line_in(error: BaseException, path: Path) -> int | None:
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return error.lineno
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return lines[-1] if lines else None
