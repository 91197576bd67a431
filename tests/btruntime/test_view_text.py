from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from btruntime.events import NodeSnapshot, NodeStatus, NodeType, TreeSnapshot
from btruntime.view.plain import plain
from btruntime.view.rows import rows
from btruntime.view.unicode import unicode_tree

ANYTHING = st.text(st.characters(codec=None), max_size=30) | st.sampled_from(
    [
        "\x1b[2J\x1b]0;owned\x07",
        "[bold]x[/]",
        "[/nothing]",
        "\u202egnp.exe",
        "<b>&amp;</b>",
        'a"b\\N:c',
        "日本語テキスト",
        "\x9b31m",
    ]
)


def node(id_: str, name: str = "n", children: int = 0, **fields: object) -> NodeSnapshot:
    whole = {
        "type": NodeType.SEQUENCE if children else NodeType.LEAF,
        "class_name": "Sequence" if children else "Leaf",
        "memory": True if children else None,
        "status": NodeStatus.RUNNING,
        "feedback": "",
        "children": tuple(f"{id_}.{index}" for index in range(children)),
    } | fields
    return NodeSnapshot(id=id_, name=name, **whole)  # type: ignore[arg-type]


def of(*nodes: NodeSnapshot) -> TreeSnapshot:
    return TreeSnapshot(nodes, 1, 0.04, True)


TREE = of(
    node("0", "tidy", 3),
    node("0.0", "pick", 2, status=NodeStatus.SUCCESS, memory=False),
    node("0.0.0", "load", status=NodeStatus.SUCCESS, feedback="from cache"),
    node("0.0.1", "loop", status=NodeStatus.SUCCESS),
    node("0.1", "or", 1, type=NodeType.SELECTOR, class_name="Selector"),
    node("0.1.0", "again", 1, type=NodeType.DECORATOR, class_name="Retry", memory=None),
    node("0.1.0.0", "place", status=NodeStatus.FAILURE, feedback="gripper is empty"),
    node("0.2", "both", 1, type=NodeType.PARALLEL, class_name="Parallel", memory=None, status=NodeStatus.INVALID),
    node("0.2.0", "wave", status=NodeStatus.INVALID),
)


def test_unicode() -> None:
    assert unicode_tree(TREE).splitlines() == [
        "▸ →* tidy",
        "├─ ✓ → pick",
        "│  ├─ ✓ load — from cache",
        "│  └─ ✓ loop",
        "├─ ▸ ?* or",
        "│  └─ ▸ ◇ Retry again",
        "│     └─ ✗ place — gripper is empty",
        "└─ · ⇉ both",
        "   └─ · wave",
    ]


def test_ascii() -> None:
    assert unicode_tree(TREE, ascii=True).splitlines() == [
        "> ->* tidy",
        "|- + -> pick",
        "|  |- + load -- from cache",
        "|  `- + loop",
        "|- > ?* or",
        "|  `- > <> Retry again",
        "|     `- x place -- gripper is empty",
        "`- . => both",
        "   `- . wave",
    ]


def test_colour_adds_nothing_but_colour() -> None:
    coloured = unicode_tree(TREE, colour=True)
    assert re.sub(r"\x1b\[\d+m", "", coloured) == unicode_tree(TREE)
    assert "\x1b[31m✗ \x1b[0m" in coloured
    assert all(line.count("\x1b[0m") >= 1 for line in coloured.splitlines())


def test_width_cuts_and_says_so() -> None:
    lines = unicode_tree(TREE, width=16).splitlines()
    assert lines[2] == "│  ├─ ✓ load —…"
    assert lines[0] == "▸ →* tidy"
    assert unicode_tree(TREE, width=16, ascii=True).splitlines()[2] == "|  |- + load..."


@settings(deadline=None)
@given(name=ANYTHING, feedback=ANYTHING, ascii=st.booleans(), width=st.none() | st.integers(0, 40))
def test_nothing_in_a_tree_can_steer_a_terminal(name: str, feedback: str, ascii: bool, width: int | None) -> None:
    tree = of(node("0", name, 1, class_name=name), node("0.0", name, feedback=feedback))
    lines = unicode_tree(tree, ascii=ascii, width=width).split("\n")
    assert len(lines) == 2
    assert not any(unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") for line in lines for char in line)
    assert not any(char in line for char in "\u202a\u202b\u202d\u202e\u2066\u2067\u2068\u200b" for line in lines)
    if ascii:
        assert all(line.isascii() for line in lines)
    if width is not None:
        assert all(cell_len(line) <= width for line in lines)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("pick up", "pick up"),
        ("two\nlines\tand", "two lines and"),
        ("\x1b[31mred", "\ufffd[31mred"),
        ("\x9b31m", "\ufffd31m"),
        ("a\u202eb", "a\ufffdb"),
        ("\ud800", "\ufffd"),
        ("क्‍ष 👩‍🔧 é", "क्‍ष 👩‍🔧 é"),
    ],
)
def test_plain(text: str, shown: str) -> None:
    assert plain(text) == shown


def test_plain_ascii() -> None:
    assert plain("é\x1b日", ascii=True) == "???"


def test_rows_keep_markup_as_text() -> None:
    tree = of(node("0", "[bold]x[/]"))
    assert next(iter(rows(tree))).name == "[bold]x[/]"
