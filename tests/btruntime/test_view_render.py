from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import py_trees
import pytest

from btruntime.agent import AgentFileError, TargetError
from btruntime.view.render import create_root

AGENT = """
from btruntime import Agent
class Tidy(Agent):
    id = "{id}"
    display_name = "Tidy"
    def get_skills(self): return ["pick", "pick"]
    def get_prompt(self): return ""
"""


@pytest.fixture
def agents(tmp_path: Path) -> str:
    for agent_id in ("tidy_up", "wave"):
        (tmp_path / f"{agent_id}.py").write_text(AGENT.format(id=agent_id))
    (tmp_path / "rest.py").write_text("broken(")
    return str(tmp_path)


@pytest.fixture
def skills(tmp_path: Path) -> str:
    for name in ("pick", "nod"):
        skill = tmp_path / "skills" / name
        skill.mkdir(parents=True)
        metadata = {"name": f"My {name}", "type": "poses", "execution": {"poses": [[0.0], [0.1]], "steps": 1.0}}
        (skill / "metadata.json").write_text(json.dumps(metadata))
    return str(tmp_path / "skills")


@pytest.mark.parametrize("query", ["tidy-up", "tidy_up", "agent/tidy_up", "agent/wave"])
def test_an_agent(agents: str, skills: str, query: str) -> None:
    root = create_root(query, skills, agents)
    first, second = [child.name for child in root.children]
    assert second == f"{first} (2)"


@pytest.mark.parametrize("query", ["pick", "local/pick", "builtin/wave"])
def test_a_skill(agents: str, skills: str, query: str) -> None:
    assert create_root(query, skills, agents).name != "Tidy"


@pytest.mark.parametrize("query", ["wave", "rest"])
def test_both_is_an_error_that_says_how_to_choose_even_if_one_is_broken(agents: str, skills: str, query: str) -> None:
    with pytest.raises(TargetError, match=f"agent/{query}"):
        create_root(query, skills, agents)


def test_a_broken_skill_takes_its_name_from_no_agent(agents: str, skills: str, tmp_path: Path) -> None:
    (tmp_path / "skills" / "pick" / "metadata.json").write_text("{")
    (tmp_path / "pick.py").write_text(AGENT.format(id="pick"))
    with pytest.raises(TargetError, match="agent/pick"):
        create_root("pick", skills, agents)


def test_a_broken_agent_says_what_is_wrong_with_it(agents: str, skills: str, tmp_path: Path) -> None:
    (tmp_path / "dance.py").write_text("broken(")
    with pytest.raises(AgentFileError, match=r"dance\.py: line 1"):
        create_root("dance", skills, agents)


def test_neither_lists_both(agents: str, skills: str) -> None:
    with pytest.raises(TargetError) as caught:
        create_root("fly", skills, agents)
    assert "tidy_up, wave" in str(caught.value)
    assert "local/pick" in str(caught.value)
    assert "builtin/wave" in str(caught.value)


def test_what_it_makes_is_drawn_by_py_trees(agents: str, skills: str) -> None:
    root = create_root("tidy_up", skills, agents)
    names = {node.get_name().strip('"') for node in py_trees.display.dot_tree(root).get_nodes()}
    assert {"Tidy", *(child.name for child in root.children)} <= names


def test_the_program_of_py_trees_draws_an_agent_of_real_skills(agents: str, skills: str, tmp_path: Path) -> None:
    arguments = {"id": "tidy_up", "agents_dir": agents, "skills_dir": skills}
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
