from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import py_trees
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from py_trees.behaviour import Behaviour
from py_trees.composites import Selector, Sequence
from py_trees.decorators import Inverter, Retry

import btruntime
from btruntime.agent import (
    Agent,
    AgentFileError,
    AgentFiles,
    AgentTreeError,
    SkillNotListedError,
    SkillSet,
    UnknownAgentError,
    compose,
    default_agents_dir,
    discover,
    find,
    name_uniquely,
)
from skills.ids import SkillIdError

TIDY = """
from btruntime import Agent

class TidyUp(Agent):
    id = "{id}"
    display_name = "Tidy up"

    def get_skills(self):
        return {skills!r}

    def get_prompt(self):
        return "Tidy."
"""


def build(skill_id: str) -> Behaviour:
    return Sequence(skill_id.rpartition("/")[2], memory=True, children=[py_trees.behaviours.Success("load policy")])


def write(directory: Path, name: str, agent_id: str = "tidy_up", skills: tuple[str, ...] = ("pick",)) -> Path:
    path = directory / name
    path.write_text(TIDY.format(id=agent_id, skills=list(skills)))
    return path


class Tidy(Agent):
    id = "tidy"
    display_name = "Tidy: the table"

    def __init__(self, *skills: str) -> None:
        self._skills = list(skills)

    def get_skills(self) -> list[str]:
        return self._skills

    def get_prompt(self) -> str:
        return ""


class Properties(Tidy):
    @property
    def id(self) -> str:  # type: ignore[override]
        return "properties"

    @property
    def display_name(self) -> str:  # type: ignore[override]
        return "By properties"


def names(root: Behaviour) -> list[str]:
    return [root.name, *(name for child in root.children for name in names(child))]


def test_the_public_name() -> None:
    assert btruntime.Agent is Agent
    with pytest.raises(AttributeError, match="nonsense"):
        btruntime.nonsense  # noqa: B018


def test_importing_it_imports_nothing_heavy() -> None:
    code = "import sys, btruntime; a = set(sys.modules); from btruntime import Agent; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"py_trees", "torch", "cv2", "h5py", "rich", "numpy"} & set(modules)


def test_defaults_of_an_agent() -> None:
    agent = Tidy("wave")
    assert (agent.display_icon, agent.get_inputs(), agent.uses_gaze()) == (None, [], False)


def test_the_default_tree_is_the_skills_in_order() -> None:
    root = compose(Tidy("wave", "local/pick", "wave"), build)
    assert isinstance(root, Sequence)
    assert root.memory
    assert names(root) == [
        "Tidy- the table",
        "wave",
        "load policy",
        "pick",
        "load policy (2)",
        "wave (2)",
        "load policy (3)",
    ]


def test_properties_work_as_attributes_do() -> None:
    assert compose(Properties("wave"), build).name == "By properties"


def test_an_agent_composes_its_own_tree() -> None:
    class Careful(Tidy):
        def build_tree(self, skills):  # type: ignore[no-untyped-def]
            tries = Retry("retry", child=skills["pick-up_cup"], num_failures=2)
            return Selector("careful", memory=False, children=[tries, skills["local/pick_up_cup"], skills["wave"]])

    root = compose(Careful("local/pick-up-cup", "builtin/wave"), build)
    assert [child.name for child in root.children] == ["retry", "pick_up_cup", "wave"]
    assert root.children[0].children[0].name == "pick-up-cup"
    assert len(set(names(root))) == len(names(root))


def test_a_skill_set_follows_the_rules_of_ids() -> None:
    skills = SkillSet(["local/pick-up-cup", "wave", "wave"], lambda skill_id: py_trees.behaviours.Success(skill_id))
    assert list(skills) == ["local/pick-up-cup", "wave"]
    assert skills["pick_up_cup"].name == "local/pick-up-cup"
    assert skills["innate-os/wave"].name == "innate-os/wave"
    assert skills["wave"] is not skills["wave"]
    assert "local/pick_up_cup" in skills
    assert "builtin/pick_up_cup" not in skills
    assert "fly" not in skills
    assert skills.get("fly") is None


def test_unknown_and_ambiguous_skills_list_what_there_is() -> None:
    skills = SkillSet(["local/wave", "builtin/wave", "innate-os/nod", "builtin/nod"], build)
    with pytest.raises(SkillNotListedError, match=r"not among those .*local/wave, builtin/wave") as caught:
        skills["fly"]
    assert str(caught.value).startswith("skill 'fly'")
    with pytest.raises(SkillNotListedError, match="ambiguous here: local/wave, builtin/wave"):
        skills["wave"]
    assert skills["nod"].name == "nod"


def _twice(skills):  # type: ignore[no-untyped-def]
    one = skills["pick"]
    return Sequence("s", memory=True, children=[Inverter("a", one), Inverter("b", one)])


def _child(skills):  # type: ignore[no-untyped-def]
    return Sequence("parent", memory=True, children=[skills["pick"]]).children[0]


def _added_twice(skills):  # type: ignore[no-untyped-def]
    one = skills["pick"]
    return Sequence("s", memory=True, children=[one, one])


@pytest.mark.parametrize(
    ("build_tree", "message"),
    [
        (_twice, "node 'pick' is in the tree twice"),
        (_child, "'pick', a child of 'parent'"),
        (_added_twice, r"build_tree failed: .*test_agent\.py: line \d+: RuntimeError"),
        (lambda skills: None, "gave NoneType"),
        (lambda skills: skills["pick"].nothing, "line .*AttributeError"),
    ],
)
def test_an_unsound_tree_is_an_error_that_names_the_agent(build_tree, message: str) -> None:  # type: ignore[no-untyped-def]
    agent = type("Broken", (Tidy,), {"build_tree": lambda self, skills: build_tree(skills)})("pick")
    with pytest.raises(AgentTreeError, match=f"agent tidy: .*{message}"):
        compose(agent, build)


@pytest.mark.parametrize("listed", ["pick", None, ["a", 3], [""], {"a": 1}])
def test_get_skills_must_give_a_list_of_ids(listed: object) -> None:
    agent = type("Broken", (Tidy,), {"get_skills": lambda self: listed})()
    with pytest.raises(AgentTreeError, match="expected a list of skill ids"):
        compose(agent, build)


def test_an_agent_without_skills_has_nothing_to_run() -> None:
    with pytest.raises(AgentTreeError, match="lists nothing"):
        compose(Tidy(), build)


def test_errors_of_a_skill_pass_through() -> None:
    class SkillBrokenError(btruntime.agent.tree.BtruntimeError):
        pass

    def failing(skill_id: str) -> Behaviour:
        raise SkillBrokenError("no checkpoint")

    with pytest.raises(SkillBrokenError, match="no checkpoint"):
        compose(Tidy("pick"), failing)


@settings(deadline=None)
@given(st.lists(st.text(alphabet="a:(2) ", max_size=6), min_size=1, max_size=12))
def test_names_become_unique_and_without_colons(given_names: list[str]) -> None:
    root = Sequence(given_names[0], memory=True)
    root.add_children([py_trees.behaviours.Success(name) for name in given_names[1:]])
    name_uniquely(root)
    found = names(root)
    assert len(set(found)) == len(found)
    assert not any(":" in name for name in found)
    for before, after in zip(given_names, found, strict=True):
        assert after.startswith(before.replace(":", "-"))


def test_create_root_draws_without_a_robot() -> None:
    assert "pick" in names(Tidy("pick").create_root(build))


def test_agents_are_found(tmp_path: Path) -> None:
    write(tmp_path, "b.py", "tidy-up")
    write(tmp_path, "a.py", "wipe")
    for name in ("_base.py", "__init__.py", "types.py", ".hidden.py", "notes.txt"):
        (tmp_path / name).write_text("raise SystemExit")
    (tmp_path / "directory.py").mkdir()
    entries = discover(tmp_path)
    assert [(entry.id, entry.display_name, entry.path.name, entry.problem) for entry in entries] == [
        ("tidy-up", "Tidy up", "b.py", None),
        ("wipe", "Tidy up", "a.py", None),
    ]
    agent = find("tidy_up", entries).create()
    assert agent.get_skills() == ["pick"]
    assert isinstance(agent, Agent)


def test_importing_agents_leaves_no_trace(tmp_path: Path) -> None:
    write(tmp_path, "json.py")
    before = list(sys.path)
    discover(tmp_path)
    assert sys.path == before
    assert "json.py" not in str(sys.modules["json"].__file__).replace("json/__init__.py", "")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["json.py"]


BROKEN = {
    "syntax.py": ("class A(:\n", r"syntax\.py: line 1: SyntaxError"),
    "import_.py": ("x = 1\nimport does_not_exist\n", r"import_\.py: line 2: ModuleNotFoundError"),
    "deep.py": ("import json\n\njson.loads('[')\n", r"deep\.py: line 3: JSONDecodeError"),
    "exits.py": ("import sys\nsys.exit(3)\n", r"exits\.py: line 2: SystemExit: 3"),
    "lines.py": ("raise ValueError('two\\nlines')\n", r"lines\.py: line 1: ValueError: two lines$"),
    "none.py": ("from btruntime import Agent\n", r"none\.py: defines no subclass"),
    "nul.py": ("a = 1\0\n", r"nul\.py: .*Error"),
    "abstract.py": ("from btruntime import Agent\nclass A(Agent):\n  id = 'a'\n", "class A lacks display_name, get_p"),
    "ctor.py": (TIDY + "    def __init__(self, robot): pass\n", r"ctor\.py: TypeError.*robot"),
    "ctor2.py": (TIDY + "    def __init__(self): self.x = 1 / 0\n", r"ctor2\.py: line 13: ZeroDivisionError"),
    "badid.py": (TIDY.replace('"{id}"', '"tidy up!"'), "id is 'tidy up!', expected letters"),
    "noid.py": (TIDY.replace('"{id}"', "7"), "id is 7, expected letters"),
    "noname.py": (TIDY.replace('"Tidy up"', "None"), "display_name is None"),
    "skills.py": (TIDY.replace("{skills!r}", "'pick'"), r"skills\.py: .*get_skills\(\) gave 'pick'"),
    "raising.py": (TIDY.replace("return {skills!r}", "return robot"), r"raising\.py: line 9: NameError"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_reported_in_one_line_and_hides_nothing(tmp_path: Path, name: str) -> None:
    content, message = BROKEN[name]
    (tmp_path / name).write_text(content.replace("{id}", "good_id").replace("{skills!r}", "['pick']"))
    write(tmp_path, "fine.py", "fine")
    entries = discover(tmp_path)
    assert [entry.id for entry in entries if entry.problem is None] == ["fine"]
    (broken,) = [entry for entry in entries if entry.problem is not None]
    assert broken.cls is None
    assert broken.problem is not None
    assert "\n" not in broken.problem
    assert str(tmp_path / name) in broken.problem
    with pytest.raises(AgentFileError, match=message):
        find(broken.id, entries)
    with pytest.raises(AgentFileError, match="cannot be used"):
        broken.create()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file_is_reported(tmp_path: Path) -> None:
    write(tmp_path, "a.py").chmod(0)
    assert "cannot be read" in str(discover(tmp_path)[0].problem)


def test_a_base_class_in_the_file_is_no_agent(tmp_path: Path) -> None:
    (tmp_path / "two.py").write_text(
        TIDY.format(id="x", skills=[]).replace("    id = ", "    kind = ").replace("TidyUp", "Base")
        + "class One(Base):\n    id = 'one'\nclass Two(Base):\n    id = 'two'\nclass _Private(Base):\n    id = 'p'\n"
    )
    assert [(entry.id, entry.problem) for entry in discover(tmp_path)] == [("one", None), ("two", None)]


def test_two_agents_with_the_same_id_are_a_problem_of_both(tmp_path: Path) -> None:
    write(tmp_path, "a.py", "tidy-up")
    write(tmp_path, "b.py", "tidy_up")
    write(tmp_path, "c.py", "fine")
    entries = discover(tmp_path)
    twins = [entry for entry in entries if entry.problem is not None]
    assert [entry.path.name for entry in twins] == ["a.py", "b.py"]
    assert "b.py (class TidyUp)" in str(twins[0].problem)
    assert "a.py (class TidyUp)" in str(twins[1].problem)
    with pytest.raises(AgentFileError, match="is also that of"):
        find("tidy_up", entries)
    assert find("fine", entries).problem is None


def test_a_broken_file_does_not_hide_the_agent_of_its_name(tmp_path: Path) -> None:
    (tmp_path / "tidy_up.py").write_text("import nothing_like_this")
    write(tmp_path, "b.py", "tidy_up")
    assert find("tidy-up", discover(tmp_path)).path.name == "b.py"


def test_find_lists_what_there_is(tmp_path: Path) -> None:
    write(tmp_path, "a.py", "wipe")
    (tmp_path / "b.py").write_text("oops(")
    with pytest.raises(UnknownAgentError, match=r"no agent is called 'fly'; there are: wipe\.\nNot usable: .*b\.py"):
        find("fly", discover(tmp_path))
    with pytest.raises(UnknownAgentError, match="there are: none"):
        find("fly", [])


def test_an_edited_file_is_picked_up_and_the_others_are_kept(tmp_path: Path) -> None:
    edited, kept = write(tmp_path, "a.py", "aa"), write(tmp_path, "b.py", "bb")
    files = AgentFiles(tmp_path)
    before = {entry.path: entry.cls for entry in files.entries()}
    stamp = edited.stat()
    write(tmp_path, "a.py", "zz")  # same size; and below, the same time to the second
    os.utime(edited, ns=(stamp.st_atime_ns, stamp.st_mtime_ns + 1))
    entries = files.entries()
    assert sorted(entry.id for entry in entries) == ["bb", "zz"]
    assert {entry.path: entry.cls for entry in entries}[kept] is before[kept]


def test_a_touched_file_is_not_imported_again(tmp_path: Path) -> None:
    path = write(tmp_path, "a.py")
    files = AgentFiles(tmp_path)
    before = files.entries()[0].cls
    os.utime(path, (1, 1))
    assert files.entries()[0].cls is before


def test_broken_repaired_removed(tmp_path: Path) -> None:
    path = write(tmp_path, "a.py")
    files = AgentFiles(tmp_path)
    modules = len(sys.modules)
    assert files.entries()[0].problem is None
    path.write_text("oops(")
    assert files.entries()[0].problem is not None
    write(tmp_path, "a.py", "again")
    assert [(entry.id, entry.problem) for entry in files.entries()] == [("again", None)]
    path.unlink()
    assert files.entries() == []
    assert len(sys.modules) <= modules + 1


def test_the_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert discover(tmp_path / "none yet") == []
    (tmp_path / "file").touch()
    with pytest.raises(AgentFileError, match="--agents-dir"):
        discover(tmp_path / "file")
    monkeypatch.setenv("BTRUNTIME_AGENTS_DIR", str(tmp_path))
    assert default_agents_dir() == tmp_path
    monkeypatch.delenv("BTRUNTIME_AGENTS_DIR")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_agents_dir() == tmp_path / "agents"


def test_a_dataclass_in_an_agent_file_works(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(
        "from __future__ import annotations\nfrom dataclasses import dataclass\n"
        + TIDY.format(id="a", skills=["pick"])
        + "\n@dataclass\nclass Note:\n    text: str = ''\n"
    )
    assert discover(tmp_path)[0].problem is None


def test_an_id_in_a_namespace_that_does_not_exist_is_said_to_be_none() -> None:
    skills = SkillSet(["local/wave"], build)
    with pytest.raises(SkillIdError, match="elsewhere/wave"):
        skills["elsewhere/wave"]
