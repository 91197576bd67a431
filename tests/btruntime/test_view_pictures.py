from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from itertools import combinations

import pydot
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from btruntime.events import NodeSnapshot, NodeStatus, NodeType, TreeSnapshot
from btruntime.view.dot import dot
from btruntime.view.layout import layout
from btruntime.view.palette import PALETTE
from btruntime.view.svg import svg

SVG = "{http://www.w3.org/2000/svg}"
ANYTHING = st.text(st.characters(codec=None), max_size=40) | st.sampled_from(
    ['quo"te', "back\\slash\\N", "a:0", "</text><script>alert(1)</script>", "&lt;", "\x00\x1b", "\uffff", "{|}", "日本"]
)
SHAPE = st.recursive(st.just([]), lambda inner: st.lists(inner, min_size=1, max_size=4), max_leaves=14)


def tree_of(shape: list, names: st.DataObject | None = None, node_id: str = "0") -> list[NodeSnapshot]:  # type: ignore[type-arg]
    name = names.draw(ANYTHING) if names else f"node {node_id}"
    nodes = [
        NodeSnapshot(
            id=node_id,
            name=name,
            type=NodeType.SEQUENCE if shape else NodeType.LEAF,
            class_name="Sequence" if shape else "Leaf",
            memory=True if shape else None,
            status=list(NodeStatus)[len(node_id) % 4],
            feedback=names.draw(ANYTHING) if names else "feedback",
            children=tuple(f"{node_id}.{index}" for index in range(len(shape))),
        )
    ]
    for index, child in enumerate(shape):
        nodes += tree_of(child, names, f"{node_id}.{index}")
    return nodes


def snapshot(shape: list, names: st.DataObject | None = None) -> TreeSnapshot:  # type: ignore[type-arg]
    return TreeSnapshot(tuple(tree_of(shape, names)), 1, 0.04, True)


@settings(deadline=None)
@given(shape=SHAPE, data=st.data())
def test_svg_is_well_formed_whatever_the_names(shape: list, data: st.DataObject) -> None:  # type: ignore[type-arg]
    tree = snapshot(shape, data)
    root = ElementTree.fromstring(svg(tree))
    titles = root.findall(f".//{SVG}title")
    assert len(titles) == len(root.findall(f".//{SVG}rect")) == len(tree.nodes)
    assert {element.tag for element in root.iter()} <= {
        SVG + tag for tag in ("svg", "g", "title", "rect", "circle", "path", "text", "tspan")
    }


def test_svg_shows_status_name_and_feedback() -> None:
    text = svg(snapshot([[], []]))
    root = ElementTree.fromstring(text)
    fills = [rect.get("fill") for rect in root.findall(f".//{SVG}rect")]
    assert fills == [PALETTE[status].fill for status in (NodeStatus.RUNNING, NodeStatus.FAILURE, NodeStatus.FAILURE)]
    assert "node 0.1 (Leaf): FAILURE\nfeedback" in [title.text for title in root.iter(SVG + "title")]
    assert "→*" in "".join(root.itertext())


def test_long_texts_are_cut_in_the_box_and_whole_in_the_tooltip() -> None:
    leaf = NodeSnapshot("0", "n" * 200, NodeType.LEAF, "Leaf", None, NodeStatus.RUNNING, "word " * 200, ())
    root = ElementTree.fromstring(svg(TreeSnapshot((leaf,), 1, 0.0, True)))
    shown = ["".join(text.itertext()) for text in root.iter(SVG + "text")]
    assert len(shown) == 3
    assert shown[0].endswith("…")
    assert shown[2].endswith("…")
    assert "n" * 200 in str(next(root.iter(SVG + "title")).text)
    assert float(root.attrib["width"]) < 350


@settings(deadline=None)
@given(shape=SHAPE, widths=st.lists(st.floats(10, 300), min_size=1, max_size=5))
def test_no_two_boxes_overlap_and_children_are_below_in_order(shape: list, widths: list[float]) -> None:  # type: ignore[type-arg]
    tree = snapshot(shape)
    sizes = {node.id: (widths[index % len(widths)], 30.0 + index % 3 * 10) for index, node in enumerate(tree.nodes)}
    boxes = layout(tree, sizes)
    assert set(boxes) == {node.id for node in tree.nodes}
    for first, second in combinations(boxes.values(), 2):
        apart_x = min(first.left + first.width, second.left + second.width) - max(first.left, second.left) <= 1e-6
        apart_y = min(first.bottom, second.bottom) - max(first.top, second.top) <= 1e-6
        assert apart_x or apart_y
    for node in tree.nodes:
        for child in node.children:
            assert boxes[child].top > boxes[node.id].bottom
        for left, right in zip(node.children, node.children[1:], strict=False):
            assert (boxes[left].left, boxes[left].top) < (boxes[right].left, boxes[right].top)
    assert min(box.left for box in boxes.values()) >= 0


@pytest.mark.filterwarnings("ignore::DeprecationWarning:pydot")
@settings(deadline=None, max_examples=15)
@given(data=st.data())
def test_dot_is_read_by_other_tools_whatever_the_names(data: st.DataObject) -> None:
    tree = snapshot([[[], []], []], data)
    (graph,) = pydot.graph_from_dot_data(dot(tree)) or [None]
    assert graph is not None
    found = {node.get_name().strip('"') for node in graph.get_nodes()} - {"node", "graph", "edge"}
    assert found == {node.id for node in tree.nodes}
    edges = {(edge.get_source().strip('"'), edge.get_destination().strip('"')) for edge in graph.get_edges()}
    assert edges == {(node.id, child) for node in tree.nodes for child in node.children}


def test_dot_escapes() -> None:
    leaf = NodeSnapshot("0", 'a"b\\N:c & d', NodeType.LEAF, "Leaf", None, NodeStatus.FAILURE, "why\nnot", ())
    text = dot(TreeSnapshot((leaf,), 1, 0.0, True))
    assert r'label="a\"b\\N:c &amp; d"' in text
    assert 'tooltip="FAILURE: why not"' in text
    assert PALETTE[NodeStatus.FAILURE].fill in text
