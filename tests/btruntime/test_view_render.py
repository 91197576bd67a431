from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import py_trees
import pytest
from py_trees.behaviour import Behaviour
from py_trees.composites import Sequence

from btruntime.view.render import NothingToDrawError, create_root
from foundation.errors import BtruntimeError

AGENT = """
from btruntime import Agent
class Tidy(Agent):
    id = "{id}"
    display_name = "Tidy"
    def get_skills(self): return ["pick", "pick"]
    def get_prompt(self): return ""
"""


class NoSkillError(BtruntimeError):
    pass


def build(skill_id: str) -> Behaviour:
    if skill_id.rpartition("/")[2] not in ("pick", "wave"):
        raise NoSkillError(f"no skill is called {skill_id!r}; there are: local/pick, builtin/wave.")
    return Sequence("skill: " + skill_id, memory=True, children=[py_trees.behaviours.Success("load")])


@pytest.fixture
def agents(tmp_path: Path) -> str:
    for agent_id in ("tidy_up", "wave"):
        (tmp_path / f"{agent_id}.py").write_text(AGENT.format(id=agent_id))
    return str(tmp_path)


@pytest.mark.parametrize("query", ["tidy-up", "tidy_up", "agent/tidy_up", "agent/wave"])
def test_an_agent(agents: str, query: str) -> None:
    root = create_root(query, agents_dir=agents, build=build)
    assert [child.name for child in root.children] == ["skill- pick", "skill- pick (2)"]


@pytest.mark.parametrize("query", ["pick", "local/pick", "builtin/wave"])
def test_a_skill(agents: str, query: str) -> None:
    assert create_root(query, agents_dir=agents, build=build).name == f"skill- {query}"


def test_both_is_an_error_that_says_how_to_choose(agents: str) -> None:
    with pytest.raises(NothingToDrawError, match="agent/wave"):
        create_root("wave", agents_dir=agents, build=build)


def test_neither_lists_both(agents: str) -> None:
    with pytest.raises(NothingToDrawError) as caught:
        create_root("fly", agents_dir=agents, build=build)
    assert "tidy_up, wave" in str(caught.value)
    assert "local/pick, builtin/wave" in str(caught.value)


def test_what_it_makes_is_drawn_by_py_trees(agents: str) -> None:
    root = create_root("tidy_up", agents_dir=agents, build=build)
    names = {node.get_name().strip('"') for node in py_trees.display.dot_tree(root).get_nodes()}
    assert {"Tidy", "skill- pick", "load", "skill- pick (2)", "load (2)"} <= names


def test_the_program_of_py_trees_draws_an_agent_of_real_skills(agents: str, tmp_path: Path) -> None:
    for name in ("pick", "wave"):
        skill = tmp_path / "skills" / name
        skill.mkdir(parents=True)
        metadata = {"name": name, "type": "poses", "execution": {"poses": [[0.0], [0.1]], "steps": 1.0}}
        (skill / "metadata.json").write_text(json.dumps(metadata))
    arguments = {"id": "tidy_up", "agents_dir": agents, "skills_dir": str(tmp_path / "skills")}
    program = "from py_trees.programs.render import main; main()"
    # Without Graphviz it writes the .dot file and then fails.
    subprocess.run(
        [sys.executable, "-c", program, "btruntime.view.render.create_root", "-k", json.dumps(arguments)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        capture_output=True,
        check=False,
    )
    drawn = (tmp_path / "tidy.dot").read_text()
    assert "Tidy" in drawn
    assert "pick" in drawn
