"""A tree as a DOT graph, with the status of each node."""

from __future__ import annotations

from btruntime.events import NodeSnapshot, TreeSnapshot
from btruntime.view.palette import PALETTE
from btruntime.view.plain import plain
from btruntime.view.rows import kind_sign


def dot(snapshot: TreeSnapshot) -> str:
    """The tree for Graphviz: `btruntime view ... | dot -Tsvg`."""
    lines = [
        "digraph tree {",
        '  graph [rankdir=TB, ordering=out, nodesep=0.25, ranksep=0.45, bgcolor="transparent"];',
        '  node [shape=box, style="rounded,filled", fontname="Helvetica", fontsize=11, margin="0.14,0.07"];',
        '  edge [color="#8c959f", arrowhead=none];',
    ]
    lines += [_node(node) for node in snapshot.nodes]
    lines += [f'  "{node.id}" -> "{child}";' for node in snapshot.nodes for child in node.children]
    return "\n".join([*lines, "}"]) + "\n"


def _node(node: NodeSnapshot) -> str:
    colours = PALETTE[node.status]
    label = _escaped(" ".join(part for part in (kind_sign(node), plain(node.name)) if part))
    feedback = plain(node.feedback)
    tooltip = _escaped(f"{node.status}: {feedback}" if feedback else node.status)
    return (
        f'  "{node.id}" [label="{label}", tooltip="{tooltip}", color="{colours.line}", '
        f'fillcolor="{colours.fill}", fontcolor="{colours.text}"];'
    )


def _escaped(text: str) -> str:
    """For a quoted string, where a backslash starts an escape of its own and an ampersand an HTML entity."""
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("&", "&amp;")
