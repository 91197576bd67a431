"""A tree as a picture: SVG made here, without Graphviz."""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

from btruntime.events import NodeSnapshot, NodeStatus, TreeSnapshot
from btruntime.view.layout import Box, layout
from btruntime.view.palette import PALETTE
from btruntime.view.plain import plain
from btruntime.view.rows import kind_sign

_MARGIN = 16.0
_NAME_SIZE, _SMALL_SIZE = 13.0, 11.0
_BOLD = 1.06  # how much wider bold text is
_PADDING, _ICON = 12.0, 24.0
_NAME_WIDTH, _FEEDBACK_WIDTH, _LEAST_WIDTH = 230.0, 196.0, 104.0
_NAME_HEIGHT, _LINE_HEIGHT, _FEEDBACK_LINES = 34.0, 14.0, 2
_EDGE, _CORNER = "#8c959f", 6.0
_FONT = "-apple-system, 'Segoe UI', 'Liberation Sans', Helvetica, Arial, sans-serif"
_ICONS = {
    NodeStatus.SUCCESS: '<path d="M-3.5 0.2 L-1 2.7 L3.6 -2.6" fill="none" stroke="#fff" stroke-width="1.8"/>',
    NodeStatus.FAILURE: '<path d="M-2.7 -2.7 L2.7 2.7 M2.7 -2.7 L-2.7 2.7" stroke="#fff" stroke-width="1.8"/>',
    NodeStatus.RUNNING: '<path d="M-2 -3.4 L3.6 0 L-2 3.4 Z" fill="#fff"/>',
    NodeStatus.INVALID: '<circle r="1.6" fill="#fff"/>',
}


def svg(snapshot: TreeSnapshot) -> str:
    """The tree, top-down: boxes with status, type, name and feedback; whole texts are in the tooltips."""
    cards = {node.id: _card(node) for node in snapshot.nodes}
    boxes = layout(snapshot, {node_id: (card.width, card.height) for node_id, card in cards.items()})
    width = max(box.left + box.width for box in boxes.values()) + 2 * _MARGIN
    height = max(box.bottom for box in boxes.values()) + 2 * _MARGIN
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.1f} {height:.1f}" width="{width:.0f}" '
            f'height="{height:.0f}" role="img" aria-label="Behaviour tree {_escaped(plain(snapshot.root.name))}">',
            f'<g transform="translate({_MARGIN} {_MARGIN})" font-family="{_FONT}" stroke-linecap="round" '
            'stroke-linejoin="round">',
            *_edges(snapshot, boxes),
            *(line for node in snapshot.nodes for line in _drawn(node, cards[node.id], boxes[node.id])),
            "</g>",
            "</svg>\n",
        ]
    )


@dataclass(frozen=True, slots=True)
class _Card:
    """The texts of a box, cut to fit, and its size."""

    kind: str
    name: str
    feedback: tuple[str, ...]
    width: float
    height: float


def _card(node: NodeSnapshot) -> _Card:
    kind, name = kind_sign(node), _fitted(plain(node.name), _NAME_SIZE, _NAME_WIDTH)
    feedback = _wrapped(plain(node.feedback))
    name_width = _text_width(name, _NAME_SIZE * _BOLD) + (_text_width(kind + "  ", _NAME_SIZE) if kind else 0.0)
    text_width = max([name_width, *(_text_width(line, _SMALL_SIZE) for line in feedback)])
    height = _NAME_HEIGHT + (_LINE_HEIGHT * len(feedback) + 2 if feedback else 0.0)
    return _Card(kind, name, feedback, max(_LEAST_WIDTH, _ICON + text_width + 1.5 * _PADDING), height)


def _drawn(node: NodeSnapshot, card: _Card, box: Box) -> Iterator[str]:
    colours = PALETTE[node.status]
    running = node.status is NodeStatus.RUNNING
    yield f'<g transform="translate({box.left:.1f} {box.top:.1f})"><title>{_escaped(_tooltip(node))}</title>'
    yield (
        f'<rect width="{box.width:.1f}" height="{box.height:.1f}" rx="8" fill="{colours.fill}" '
        f'stroke="{colours.line}" stroke-width="{2 if running else 1.2}"/>'
    )
    yield f'<g transform="translate(17 17)"><circle r="7" fill="{colours.line}"/>{_ICONS[node.status]}</g>'
    kind = f'<tspan fill="{colours.line}" font-weight="600">{_escaped(card.kind)}</tspan>  ' if card.kind else ""
    yield (
        f'<text x="{_ICON + 7:.0f}" y="21.5" font-size="{_NAME_SIZE}" fill="{colours.text}" '
        f'xml:space="preserve">{kind}<tspan font-weight="600">{_escaped(card.name)}</tspan></text>'
    )
    for index, line in enumerate(card.feedback):
        y = _NAME_HEIGHT + 4 + _LINE_HEIGHT * index
        yield (
            f'<text x="{_ICON + 7:.0f}" y="{y:.1f}" font-size="{_SMALL_SIZE}" fill="#57606a">{_escaped(line)}</text>'
        )
    yield "</g>"


def _edges(snapshot: TreeSnapshot, boxes: dict[str, Box]) -> Iterator[str]:
    nodes = {node.id: node for node in snapshot.nodes}
    pairs = [(parent, nodes[child]) for parent in snapshot.nodes for child in parent.children]
    # Running edges come last, above the others.
    for parent, child in sorted(pairs, key=lambda pair: pair[1].status is NodeStatus.RUNNING):
        running = child.status is NodeStatus.RUNNING
        colour = PALETTE[NodeStatus.RUNNING].line if running else _EDGE
        path = _path(boxes[parent.id], boxes[child.id], only=len(parent.children) == 1)
        yield f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="{2 if running else 1.2}"/>'


def _path(parent: Box, child: Box, *, only: bool) -> str:
    if child.stacked:
        x, y = parent.left + 10, child.top + 17
        return f"M{x:.1f} {parent.bottom:.1f} V{y - _CORNER:.1f} q0 {_CORNER} {_CORNER} {_CORNER} H{child.left:.1f}"
    end, half = child.middle, (parent.bottom + child.top) / 2
    start = end if only and abs(end - parent.middle) < parent.width / 2 - _CORNER else parent.middle
    radius = min(_CORNER, abs(end - start) / 2)
    if radius < 0.5:
        return f"M{start:.1f} {parent.bottom:.1f} L{end:.1f} {child.top:.1f}"
    turn = radius if end > start else -radius
    return (
        f"M{start:.1f} {parent.bottom:.1f} V{half - radius:.1f} q0 {radius:.1f} {turn:.1f} {radius:.1f} "
        f"H{end - turn:.1f} q{turn:.1f} 0 {turn:.1f} {radius:.1f} V{child.top:.1f}"
    )


def _wrapped(text: str) -> tuple[str, ...]:
    """At most two lines; the second is cut where the text goes on."""
    lines: list[str] = []
    words = text.split()
    while words and len(lines) < _FEEDBACK_LINES - 1:
        count = len(words)
        while count > 1 and _text_width(" ".join(words[:count]), _SMALL_SIZE) > _FEEDBACK_WIDTH:
            count -= 1
        lines.append(_fitted(" ".join(words[:count]), _SMALL_SIZE, _FEEDBACK_WIDTH))
        words = words[count:]
    if words:
        lines.append(_fitted(" ".join(words), _SMALL_SIZE, _FEEDBACK_WIDTH))
    return tuple(lines)


def _fitted(text: str, size: float, width: float) -> str:
    if _text_width(text, size) <= width:
        return text
    kept, left = 0, width - _text_width("…", size)
    for char in text:
        left -= _char_width(char) * size
        if left < 0:
            break
        kept += 1
    return text[:kept].rstrip() + "…"


def _text_width(text: str, size: float) -> float:
    return sum(_char_width(char) for char in text) * size


def _char_width(char: str) -> float:
    """In units of the font size, for common sans-serif fonts, on the wide side: the viewer's font is not known."""
    if char in "iIljftr.,:;'|!()[] ":
        return 0.33
    if char in "mwMW@%—…":
        return 0.95
    if unicodedata.east_asian_width(char) in "WF":
        return 1.05
    return 0.68 if char.isupper() else 0.56


def _tooltip(node: NodeSnapshot) -> str:
    head = f"{plain(node.name)} ({plain(node.class_name)}): {node.status}"
    return f"{head}\n{plain(node.feedback)}" if node.feedback else head


def _escaped(text: str) -> str:
    """For text and attributes; two code points that no XML document may hold are left after `plain`."""
    return html.escape(text).replace("\ufffe", "\ufffd").replace("\uffff", "\ufffd")
