"""Making text that may come from anywhere safe to show."""

from __future__ import annotations

import unicodedata

_JOINERS = "\u200c\u200d"  # parts of ordinary words and emoji, harmless alone
_UNSAFE = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def plain(text: str, *, ascii: bool = False) -> str:
    """`text` in one line, without anything that a terminal, or a reader's eye, would take for something else.

    Control characters (escape sequences start with one), overriding text directions, invisible characters and lone
    surrogates become a replacement character; line breaks and tabs become spaces.

    Args:
        text: names and feedback may come from anywhere.
        ascii: replace all that is not ASCII, too.
    """
    if text.isascii() and text.isprintable():
        return text
    mark = "?" if ascii else "\ufffd"
    safe = "".join(_safe(char, mark) for char in text)
    return safe.encode("ascii", "replace").decode("ascii") if ascii else safe


def _safe(char: str, mark: str) -> str:
    if char in "\n\r\t\u2028\u2029":
        return " "
    if char not in _JOINERS and unicodedata.category(char) in _UNSAFE:
        return mark
    return char
