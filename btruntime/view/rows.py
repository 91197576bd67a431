"""What every view shows of a node, in the same words and signs, and safe to show."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from btruntime.events import NodeSnapshot, NodeStatus, NodeType, TreeSnapshot
from btruntime.view.plain import plain


@dataclass(frozen=True, slots=True)
class Signs:
    """The characters of one way of writing.

    Attributes:
        status: by status; INVALID is a node that was not ticked.
        types: by type, with memory last: an arrow is a sequence, a question mark a selector; `*` says that it resumes
            its running child (Marzinotto et al., "Towards a unified behavior trees framework for robot control", 2014).
        branch, last, line, gap: what connects a node with its parent, 3 cells each.
    """

    status: dict[NodeStatus, str]
    types: dict[NodeType, str]
    branch: str
    last: str
    line: str
    gap: str
    dash: str
    more: str


UNICODE = Signs(
    status={NodeStatus.SUCCESS: "✓", NodeStatus.FAILURE: "✗", NodeStatus.RUNNING: "▸", NodeStatus.INVALID: "·"},
    types={NodeType.SEQUENCE: "→", NodeType.SELECTOR: "?", NodeType.PARALLEL: "⇉", NodeType.DECORATOR: "◇"},
    branch="├─ ",
    last="└─ ",
    line="│  ",
    gap="   ",
    dash=" — ",
    more="…",
)
ASCII = Signs(
    status={NodeStatus.SUCCESS: "+", NodeStatus.FAILURE: "x", NodeStatus.RUNNING: ">", NodeStatus.INVALID: "."},
    types={NodeType.SEQUENCE: "->", NodeType.SELECTOR: "?", NodeType.PARALLEL: "=>", NodeType.DECORATOR: "<>"},
    branch="|- ",
    last="`- ",
    line="|  ",
    gap="   ",
    dash=" -- ",
    more="...",
)


@dataclass(frozen=True, slots=True)
class Row:
    """One node as one line, in the parts that a view styles differently. Nothing in it can steer a terminal."""

    status: NodeStatus
    lead: str
    sign: str
    kind: str
    name: str
    feedback: str


def rows(snapshot: TreeSnapshot, *, ascii: bool = False) -> Iterator[Row]:
    """The tree as lines, parents before children."""
    signs = ASCII if ascii else UNICODE
    nodes = {node.id: node for node in snapshot.nodes}
    yield from _rows(snapshot.root, nodes, signs, "", "", ascii)


def _rows(
    node: NodeSnapshot, nodes: dict[str, NodeSnapshot], signs: Signs, lead: str, below: str, ascii: bool
) -> Iterator[Row]:
    yield Row(
        status=node.status,
        lead=lead,
        sign=signs.status[node.status],
        kind=kind_sign(node, signs),
        name=plain(node.name, ascii=ascii),
        feedback=plain(node.feedback, ascii=ascii),
    )
    for child in node.children:
        is_last = child == node.children[-1]
        child_lead, child_below = (signs.last, signs.gap) if is_last else (signs.branch, signs.line)
        yield from _rows(nodes[child], nodes, signs, below + child_lead, below + child_below, ascii)


def kind_sign(node: NodeSnapshot, signs: Signs = UNICODE) -> str:
    """The sign of the node's type; empty for a leaf, the class as well for a decorator."""
    sign = signs.types.get(node.type, "")
    if node.type is NodeType.DECORATOR:
        return f"{sign} {plain(node.class_name, ascii=signs is ASCII)}"
    return f"{sign}*" if node.memory else sign
