"""Where the boxes of a tree go: top-down, and leaves of one parent in a column, so that the picture stays narrow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from btruntime.events import NodeSnapshot, TreeSnapshot

_SIDE_GAP, _LEVEL_GAP = 22.0, 34.0
_INDENT, _STACK_GAP = 20.0, 8.0
_STACK_FROM = 2  # leaves of one parent; the root's own leaves stay side by side


@dataclass(frozen=True, slots=True)
class Box:
    """A placed box; `stacked` boxes hang below each other under the left edge of their parent."""

    left: float
    top: float
    width: float
    height: float
    stacked: bool

    @property
    def middle(self) -> float:
        """Horizontal centre."""
        return self.left + self.width / 2

    @property
    def bottom(self) -> float:
        """Lower edge."""
        return self.top + self.height


def layout(snapshot: TreeSnapshot, sizes: Mapping[str, tuple[float, float]]) -> dict[str, Box]:
    """A box for each node, by id; none overlap, the leftmost and topmost edges are 0.

    Args:
        snapshot: the tree.
        sizes: width and height of each node's box, by id.
    """
    placing = _Placing({node.id: node for node in snapshot.nodes}, dict(sizes))
    placing.place(snapshot.root, 0.0, 0.0)
    return placing.boxes


class _Placing:
    """Each subtree gets a column as wide as its widest level, and its root sits in the middle above its children."""

    def __init__(self, nodes: dict[str, NodeSnapshot], sizes: dict[str, tuple[float, float]]):
        self._nodes = nodes
        self._sizes = sizes
        self._widths: dict[str, float] = {}
        self.boxes: dict[str, Box] = {}

    def place(self, node: NodeSnapshot, left: float, top: float) -> None:
        width, height = self._sizes[node.id]
        if self._stacks(node):
            self.boxes[node.id] = Box(left, top, width, height, stacked=False)
            self._place_column(node, left + _INDENT, top + height + _STACK_GAP)
            return
        child_left = left + (self._width(node) - self._row_width(node)) / 2
        below = top + height + _LEVEL_GAP
        for child in self._children(node):
            self.place(child, child_left, below)
            child_left += self._width(child) + _SIDE_GAP
        self.boxes[node.id] = Box(self._middle(node, left) - width / 2, top, width, height, stacked=False)

    def _place_column(self, node: NodeSnapshot, left: float, top: float) -> None:
        children = self._children(node)
        widest = max((self._sizes[child.id][0] for child in children), default=0.0)
        for child in children:
            height = self._sizes[child.id][1]
            self.boxes[child.id] = Box(left, top, widest, height, stacked=True)
            top += height + _STACK_GAP

    def _middle(self, node: NodeSnapshot, left: float) -> float:
        """Between the first and the last child, as far as the box stays within its column."""
        width, column = self._sizes[node.id][0], self._width(node)
        if not node.children:
            return left + column / 2
        between = (self.boxes[node.children[0]].middle + self.boxes[node.children[-1]].middle) / 2
        return min(max(between, left + width / 2), left + column - width / 2)

    def _children(self, node: NodeSnapshot) -> list[NodeSnapshot]:
        return [self._nodes[child] for child in node.children]

    def _stacks(self, node: NodeSnapshot) -> bool:
        return (
            "." in node.id
            and len(node.children) >= _STACK_FROM
            and not any(child.children for child in self._children(node))
        )

    def _width(self, node: NodeSnapshot) -> float:
        """Of the column that the subtree needs."""
        if node.id not in self._widths:
            own = self._sizes[node.id][0]
            if self._stacks(node):
                below = _INDENT + max(self._sizes[child][0] for child in node.children)
            else:
                below = self._row_width(node)
            self._widths[node.id] = max(own, below)
        return self._widths[node.id]

    def _row_width(self, node: NodeSnapshot) -> float:
        children = self._children(node)
        return sum(self._width(child) for child in children) + _SIDE_GAP * max(len(children) - 1, 0)
