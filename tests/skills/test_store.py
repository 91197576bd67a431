from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

import skills.store as store_module
from skills.ids import AmbiguousSkillError, SkillIdError, UnknownSkillError
from skills.store import SkillEntry, SkillStore, StoreError, default_skills_dir


@pytest.fixture
def store(tmp_path) -> SkillStore:
    (tmp_path / "user").mkdir()
    (tmp_path / "builtin").mkdir()
    return SkillStore(tmp_path / "user", tmp_path / "builtin")


def _skill(root: Path, name: str, document: object, files: tuple[str, ...] = ()) -> Path:
    directory = root / name
    directory.mkdir(parents=True, exist_ok=True)
    text = document if isinstance(document, str) else json.dumps(document)
    (directory / "metadata.json").write_text(text)
    for file in files:
        (directory / file).parent.mkdir(parents=True, exist_ok=True)
        (directory / file).write_bytes(b"x")
    return directory


def _learned(checkpoint: str | None = None) -> dict:
    return {"name": "Cup", "type": "learned", "execution": {"checkpoint": checkpoint}}


def _by_id(store: SkillStore) -> dict[str, SkillEntry]:
    return {str(entry.id): entry for entry in store.scan()}


def test_every_kind_is_found(store):
    _skill(store.user_dir, "cup", _learned("run/act.pth"), ("run/act.pth", "data/episode_0.h5", "data/episode_12.h5"))
    _skill(store.user_dir, "new", {"type": "learned"})
    _skill(store.user_dir, "gone", _learned("run/act.pth"))
    _skill(
        store.builtin_dir, "wave", {"type": "replay", "execution": {"replay_file": "episode_0.h5"}}, ("episode_0.h5",)
    )
    _skill(store.builtin_dir, "home", {"name": "Go Home", "type": "poses", "execution": {"poses": [[0, 1]]}})
    (store.user_dir / "navigate.py").write_text("raise RuntimeError('imported')")
    found = _by_id(store)
    assert {name: (entry.kind, entry.in_training, entry.problem) for name, entry in found.items()} == {
        "builtin/home": ("poses", False, None),
        "builtin/wave": ("replay", False, None),
        "local/cup": ("learned", False, None),
        "local/gone": ("learned", True, None),
        "local/navigate": ("code", False, None),
        "local/new": ("learned", True, None),
    }
    assert found["local/cup"].episode_count == 2
    assert found["local/cup"].runnable
    assert not found["local/new"].runnable
    assert found["builtin/home"].display_name == "Go Home"
    assert found["local/new"].display_name == "new"
    assert found["local/navigate"].path == store.user_dir / "navigate.py"


def test_what_is_no_skill_is_not_listed(store):
    for name in (".hidden", "_private", "__pycache__", "notes"):
        (store.user_dir / name).mkdir()
    for name in ("_helper.py", "__init__.py", "readme.md", ".x.py"):
        (store.user_dir / name).write_text("")
    _skill(store.user_dir, ".new-abc", _learned())
    assert store.scan() == []


def test_a_broken_skill_is_reported_and_hides_nothing(store):
    _skill(store.user_dir, "a-broken", '{"type": "learn')
    _skill(store.user_dir, "b-unknown", {"type": "dance"})
    (store.user_dir / "c-lost" / "data").mkdir(parents=True)
    _skill(store.user_dir, "d-escapes", _learned("../../secret.pth"))
    _skill(store.user_dir, "e-replay", {"type": "replay", "execution": {"replay_file": "none.h5"}})
    _skill(store.user_dir, "f-replay", {"type": "replay"})
    _skill(store.user_dir, "g-poses", {"type": "poses"})
    _skill(store.user_dir, "h-replay", {"type": "replay", "execution": {"replay_file": "/etc/passwd"}})
    _skill(store.user_dir, "i-data", _learned()).joinpath("data").write_text("a file")
    (store.user_dir / "j.py").symlink_to("nowhere")
    (store.user_dir / "k").mkdir()
    (store.user_dir / "k" / "metadata.json").symlink_to("nowhere")
    _skill(store.user_dir, "z-good", _learned())
    found = _by_id(store)
    expected = {
        "a-broken": "not valid JSON",
        "b-unknown": "type is 'dance'",
        "c-lost": "cannot be read",
        "d-escapes": "not a path inside",
        "e-replay": "'none.h5', which does not exist",
        "f-replay": "execution.replay_file is missing",
        "g-poses": "execution.poses is empty",
        "h-replay": "not a path inside",
        "i-data": "Not a directory",
        "j": "not a file",
        "k": "cannot be read",
    }
    assert {name.partition("/")[2] for name in found} == {*expected, "z-good"}
    for name, says in expected.items():
        entry = found[f"local/{name}"]
        assert says in str(entry.problem)
        assert name in str(entry.problem)
        assert not entry.runnable
    assert found["local/z-good"].problem is None


def test_changes_on_disk_are_picked_up(store):
    assert store.scan() == []
    directory = _skill(store.user_dir, "cup", _learned("run/act.pth"))
    assert _by_id(store)["local/cup"].in_training
    (directory / "run").mkdir()
    (directory / "run" / "act.pth").write_bytes(b"x")
    assert not _by_id(store)["local/cup"].in_training
    for name in ("One", "Two", "Six"):  # Equal sizes, within one tick of the clock of most file systems.
        (directory / "metadata.json").write_text(json.dumps(_learned() | {"name": name}))
        assert _by_id(store)["local/cup"].display_name == name
    (directory / "metadata.json").write_text("{")
    assert _by_id(store)["local/cup"].problem
    (directory / "metadata.json").unlink()
    assert store.scan() == []


def test_metadata_that_did_not_change_is_not_read_again(store, monkeypatch):
    for name, document in (("cup", _learned()), ("broken", "{")):
        path = _skill(store.user_dir, name, document) / "metadata.json"
        os.utime(path, ns=(10**9, 10**9))
    reads = []
    load = store_module.load_metadata
    monkeypatch.setattr(store_module, "load_metadata", lambda path: reads.append(path) or load(path))
    monkeypatch.setattr(store_module, "_SETTLED_NS", -(10**12))
    first = store.scan()
    assert len(reads) == 2
    assert store.scan() == first
    assert len(reads) == 2


def test_two_skills_with_one_id_are_both_reported(store):
    _skill(store.user_dir, "cup", _learned())
    (store.user_dir / "cup.py").write_text("")
    problems = [str(entry.problem) for entry in store.scan()]
    assert len(problems) == 2
    assert all("has the ID local/cup, as has" in problem for problem in problems)
    with pytest.raises(AmbiguousSkillError):
        store.get("cup")


def test_getting_one(store):
    _skill(store.user_dir, "pick-up-cup", _learned())
    _skill(store.builtin_dir, "wave", {"type": "poses", "execution": {"poses": [[0]]}})
    assert store.get("pick_up_cup").path == store.user_dir / "pick-up-cup"
    assert str(store.get("innate-os/wave").id) == "builtin/wave"
    with pytest.raises(UnknownSkillError, match=r"There is local/pick-up-cup, builtin/wave\."):
        store.get("pick_up_cups")


def test_creating_one(store):
    entry = store.create("Pick Up Socks!")
    assert (str(entry.id), entry.in_training, entry.problem) == ("local/pick-up-socks", True, None)
    assert json.loads((entry.path / "metadata.json").read_text()) == {
        "name": "Pick Up Socks!",
        "type": "learned",
        "guidelines": "",
        "guidelines_when_running": "",
        "inputs": {},
        "execution": {
            "duration": None,
            "progress_threshold": None,
            "start_pose": None,
            "end_pose": None,
            "n_action_steps": None,
        },
    }
    assert store.create("Wave", "replay").kind == "replay"


def test_creating_makes_the_directory_of_the_user(tmp_path):
    store = SkillStore(tmp_path / "deep" / "skills", tmp_path / "none")
    assert store.scan() == []
    assert store.create("Cup").path == tmp_path / "deep" / "skills" / "cup"


def test_creating_never_overwrites(store):
    _skill(store.user_dir, "pick_up", '{"mine": 1')
    (store.user_dir / "wave.py").write_text("mine")
    (store.user_dir / "notes").mkdir()
    (store.user_dir / "notes" / "file").write_text("mine")
    for name in ("Pick up", "wave", "Notes"):
        with pytest.raises(StoreError, match="Choose another name"):
            store.create(name)
    with pytest.raises(SkillIdError):
        store.create(" ")
    assert (store.user_dir / "pick_up" / "metadata.json").read_text() == '{"mine": 1'
    assert (store.user_dir / "notes" / "file").read_text() == "mine"
    assert sorted(p.name for p in store.user_dir.iterdir()) == ["notes", "pick_up", "wave.py"]


def test_a_directory_that_is_a_file_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    store = SkillStore(tmp_path / "file", tmp_path / "none")
    with pytest.raises(StoreError, match="cannot be listed"):
        store.scan()


def test_where_skills_are(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("BTRUNTIME_SKILLS_DIR", raising=False)
    assert default_skills_dir() == tmp_path / "skills"
    monkeypatch.setenv("BTRUNTIME_SKILLS_DIR", "")
    assert default_skills_dir() == tmp_path / "skills"
    monkeypatch.setenv("BTRUNTIME_SKILLS_DIR", "~/other")
    assert SkillStore().user_dir == tmp_path / "other"
    assert SkillStore().builtin_dir.name == "builtin"
