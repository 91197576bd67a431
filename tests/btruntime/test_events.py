from __future__ import annotations

import numpy as np
import pytest
from py_trees.behaviour import Behaviour
from py_trees.behaviours import StatusQueue, Success
from py_trees.common import ParallelPolicy, Status
from py_trees.composites import Parallel, Selector, Sequence
from py_trees.decorators import Retry

from btruntime.events import NodeStatus, NodeType, Outcome, RunResult, TreeSnapshot, setpoint_values, snapshot
from hal.clock import Timing
from hal.types import Setpoint

LETTERS = {"I": Status.INVALID, "R": Status.RUNNING, "S": Status.SUCCESS, "F": Status.FAILURE}


def leaf(name: str, statuses: str) -> Behaviour:
    return StatusQueue(name, [LETTERS[each] for each in statuses], eventually=None)


def table(root: Behaviour, ticks: int) -> list[str]:
    """One string per tick: the status of every node in pre-order, `-` before it when the snapshot did not change."""
    found, before = [], None
    for tick in range(ticks):
        root.tick_once()
        before = snapshot(root, tick, tick * 0.04, before)
        found.append(("" if before.changed else "-") + "".join(node.status[0] for node in before.nodes))
    return found


def test_a_sequence_with_memory_tick_by_tick() -> None:
    root = Sequence("root", memory=True, children=[leaf("a", "RS"), leaf("b", "RRS")])
    # root a b
    assert table(root, 4) == ["RRI", "RSR", "-RSR", "SSS"]


def test_a_selector_preempts() -> None:
    root = Selector("root", memory=False, children=[leaf("high", "FFR"), leaf("low", "RRR")])
    assert table(root, 3) == ["RFR", "-RFR", "RRI"]


def test_structure_of_every_type() -> None:
    child = Sequence("s", memory=False, children=[Success("leaf")])
    root = Parallel(
        "all",
        policy=ParallelPolicy.SuccessOnAll(),
        children=[child, Retry("again", child=Selector("pick", memory=True), num_failures=2)],
    )
    seen = [(n.id, n.type, n.class_name, n.memory, n.children) for n in snapshot(root, 0, 0.0).nodes]
    assert seen == [
        ("0", NodeType.PARALLEL, "Parallel", None, ("0.0", "0.1")),
        ("0.0", NodeType.SEQUENCE, "Sequence", False, ("0.0.0",)),
        ("0.0.0", NodeType.LEAF, "Success", None, ()),
        ("0.1", NodeType.DECORATOR, "Retry", None, ("0.1.0",)),
        ("0.1.0", NodeType.SELECTOR, "Selector", True, ()),
    ]
    assert [depth for depth, _ in snapshot(root, 0, 0.0).with_depth()] == [0, 1, 2, 1, 2]


def test_unchanged_nodes_are_shared_and_a_feedback_is_a_change() -> None:
    root = Sequence("root", memory=True, children=[leaf("a", "RRRR"), leaf("b", "R")])
    root.tick_once()
    first = snapshot(root, 0, 0.0)
    root.tick_once()
    second = snapshot(root, 1, 0.04, first)
    assert first.changed
    assert not second.changed
    assert second.nodes is first.nodes
    assert second.time_s == 0.04
    root.children[0].feedback_message = "half way"
    third = snapshot(root, 2, 0.08, second)
    assert third.changed
    assert third.nodes[1].feedback == "half way"
    assert third.nodes[2] is first.nodes[2]
    assert third.same_shape(first)


@pytest.mark.parametrize("change", ["more", "fewer", "name", "class", "memory"])
def test_another_shape_makes_a_whole_new_snapshot(change: str) -> None:
    root = Sequence("root", memory=True, children=[leaf("a", "R"), leaf("b", "R")])
    before = snapshot(root, 0, 0.0)
    if change == "more":
        root.add_child(leaf("c", "R"))
    elif change == "fewer":
        root.remove_child(root.children[1])
    elif change == "name":
        root.children[0].name = "z"
    elif change == "class":
        root.replace_child(root.children[0], Success("a"))
    else:
        root.memory = False
    after = snapshot(root, 1, 0.04, before)
    assert after.changed
    assert not after.same_shape(before)
    assert after == TreeSnapshot(snapshot(root, 1, 0.04).nodes, 1, 0.04, True)


def test_the_same_number_of_nodes_at_other_places_is_another_shape() -> None:
    def tree(deep: bool) -> Behaviour:
        inner = Sequence("s", memory=True, children=[leaf("a", "R")] + ([leaf("b", "R")] if deep else []))
        return Sequence("root", memory=True, children=[inner] + ([] if deep else [leaf("b", "R")]))

    before = snapshot(tree(deep=False), 0, 0.0)
    after = snapshot(tree(deep=True), 1, 0.04, before)
    assert [node.id for node in after.nodes] == ["0", "0.0", "0.0.0", "0.0.1"]


@pytest.mark.parametrize(("left", "shown"), [(None, ""), (3, "3"), ("why", "why")])
def test_whatever_a_leaf_leaves_as_feedback_is_text(left: object, shown: str) -> None:
    node = leaf("a", "R")
    before = snapshot(node, 0, 0.0)
    node.feedback_message = left  # type: ignore[assignment]
    assert snapshot(node, 0, 0.0).root.feedback == shown
    assert snapshot(node, 1, 0.04, before).root.feedback == shown


def test_a_leaf_may_keep_an_array_called_memory() -> None:
    node = leaf("a", "R")
    node.memory = np.zeros(3)  # type: ignore[attr-defined]
    before = snapshot(node, 0, 0.0)
    assert before.root.memory is None
    assert not snapshot(node, 1, 0.04, before).changed


def test_only_done_is_success() -> None:
    timing = Timing(2, 40.0, 0.0, 0.0, 0.0, 0, 0.0)
    results = {each: RunResult(each, "", 1.0, 3.0, 2, timing) for each in Outcome}
    assert [each for each, result in results.items() if result.success] == [Outcome.DONE]
    assert results[Outcome.DONE].duration_s == 2.0


def test_setpoint_values_are_joints_then_grippers_then_base() -> None:
    joints = np.array([0.1, 0.2])
    assert setpoint_values(Setpoint(joints, None, 0.0)) == (0.1, 0.2)
    assert setpoint_values(Setpoint(joints, np.array([0.3, -0.4]), 0.0)) == (0.1, 0.2, 0.3, -0.4)
    fractions = np.array([0.5, 1.0])
    assert setpoint_values(Setpoint(joints, None, 0.0, fractions)) == (0.1, 0.2, 0.5, 1.0)
    everything = setpoint_values(Setpoint(joints, np.array([0.3, -0.4]), 0.0, np.array([np.nan, 1.0])))
    assert everything == pytest.approx((0.1, 0.2, np.nan, 1.0, 0.3, -0.4), nan_ok=True)


def test_statuses_are_those_of_py_trees() -> None:
    assert {each.name for each in Status} == {each.value for each in NodeStatus}
