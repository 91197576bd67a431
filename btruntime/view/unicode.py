"""A tree as text, for logs, mails and terminals."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from btruntime.events import NodeStatus, TreeSnapshot
from btruntime.view.rows import ASCII, UNICODE, Row, Signs, rows

_DIM, _BOLD, _RESET = "\x1b[2m", "\x1b[1m", "\x1b[0m"
_COLOURS = {
    NodeStatus.SUCCESS: "\x1b[32m",
    NodeStatus.FAILURE: "\x1b[31m",
    NodeStatus.RUNNING: "\x1b[36m",
    NodeStatus.INVALID: _DIM,
}


def unicode_tree(snapshot: TreeSnapshot, *, colour: bool = False, width: int | None = None, ascii: bool = False) -> str:
    """The tree, one line per node: status, type, name, feedback.

    Args:
        snapshot: the tree at one tick.
        colour: write ANSI colours; a status has its sign as well.
        width: cells of a line at most; longer ones end in "…". No limit if None.
        ascii: use ASCII alone.
    """
    signs = ASCII if ascii else UNICODE
    return "\n".join(_line(row, signs, colour, width) for row in rows(snapshot, ascii=ascii))


def parts(row: Row, signs: Signs) -> Iterator[tuple[str, str]]:
    """Text and style ("lead", "status", "kind", "name", "feedback") of a row, left to right."""
    yield row.lead, "lead"
    yield row.sign + " ", "status"
    if row.kind:
        yield row.kind + " ", "kind"
    yield row.name, "name"
    if row.feedback:
        yield signs.dash + row.feedback, "feedback"


def _line(row: Row, signs: Signs, colour: bool, width: int | None) -> str:
    pieces = parts(row, signs)
    if width is not None:
        pieces = _cut(pieces, width, signs.more)
    if not colour:
        return "".join(text for text, _ in pieces).rstrip()
    return "".join(_coloured(text, style, row.status) for text, style in pieces if text)


def _coloured(text: str, style: str, status: NodeStatus) -> str:
    if style == "name":
        return _BOLD + _COLOURS[status] + text + _RESET if status is NodeStatus.RUNNING else text
    return (_COLOURS[status] if style == "status" else _DIM) + text + _RESET


def _cut(pieces: Iterable[tuple[str, str]], width: int, more: str) -> Iterator[tuple[str, str]]:
    """The pieces as far as `width` cells reach; the last says when something is missing."""
    from rich.cells import cell_len, set_cell_size

    whole = list(pieces)
    if sum(cell_len(text) for text, _ in whole) <= width:
        yield from whole
        return
    more = set_cell_size(more, min(cell_len(more), max(width, 0)))
    left = max(width, 0) - cell_len(more)
    for text, style in whole:
        size = cell_len(text)
        if size > left:
            yield set_cell_size(text, left).rstrip() + more, style
            return
        yield text, style
        left -= size
