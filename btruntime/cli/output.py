"""What commands say: results on standard output, messages on standard error, and nothing that steers a terminal.

Names, reasons and error messages come from files that anyone may have written.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import TextIO

from btruntime.view.plain import plain


def say(line: str = "", *, file: TextIO | None = None) -> None:
    """One line, whatever `line` holds; see `btruntime.view.plain`.

    Args:
        line: text from files in it may hold anything, line breaks too.
        file: standard output by default.
    """
    print(plain(line), file=file or sys.stdout, flush=file is not None)


def say_lines(text: str, *, file: TextIO | None = None) -> None:
    """Like `say`, for a text whose line breaks are meant."""
    for line in text.split("\n"):
        say(line, file=file)


def tell(text: str) -> None:
    """A message of one or more lines, on standard error."""
    say_lines(text, file=sys.stderr)


def print_json(result: Mapping[str, object]) -> None:
    """One JSON object on a line of its own; JSON's own escapes keep it safe to show."""
    print(json.dumps(result, allow_nan=False, default=str))
