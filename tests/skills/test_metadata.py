from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from foundation.errors import BtruntimeError
from foundation.files import PathEscapesError
from skills.metadata import (
    LearnedExecution,
    MetadataError,
    PosesExecution,
    ReplayExecution,
    SkillMetadata,
    activate,
    load_metadata,
    save_metadata,
    update_metadata,
)


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "metadata.json"


def _write(path: Path, document: object) -> Path:
    path.write_text(json.dumps(document))
    return path


def _learned(**execution: object) -> dict:
    return {"name": "Cup", "type": "learned", "execution": execution}


def test_defaults_of_a_learned_skill(path):
    metadata = load_metadata(_write(path, _learned()))
    execution = metadata.execution
    assert isinstance(execution, LearnedExecution)
    assert (execution.duration, execution.progress_threshold, execution.progress_hold_ticks) == (120.0, 0.95, 5)
    assert (execution.speed, execution.start_pose, execution.end_pose) == (1.0, None, None)
    assert (execution.start_pose_time, execution.end_pose_time) == (1.0, 1.0)
    assert (execution.checkpoint, execution.stats_file, execution.action_dim, execution.n_action_steps) == (None,) * 4
    assert execution.chunk_mode is None
    assert not execution.legacy_runtime
    assert (metadata.guidelines, metadata.guidelines_when_running, metadata.inputs) == ("", "", {})


@pytest.mark.parametrize("kind", ["learned", "replay", "poses"])
@pytest.mark.parametrize("execution", [{}, {"execution": None}, {"execution": {}}])
def test_null_is_missing_is_the_default(path, kind, execution):
    plain = load_metadata(_write(path, {"type": kind}))
    fields = type(plain.execution).model_fields
    nulls = {"name": None, "guidelines": None, "inputs": None} | execution
    assert load_metadata(_write(path, {"type": kind, **nulls})).model_dump() == plain.model_dump()
    assert load_metadata(_write(path, {"type": kind, "execution": dict.fromkeys(fields)})).execution == plain.execution


def test_replay_and_poses(path):
    replay = load_metadata(
        _write(path, {"type": "replay", "execution": {"replay_file": "data/episode_0.h5"}})
    ).execution
    assert isinstance(replay, ReplayExecution)
    assert (replay.replay_file, replay.replay_frequency) == ("data/episode_0.h5", None)
    poses = load_metadata(_write(path, {"type": "poses", "execution": {"poses": [[0, 1], [1, 0.5], [2, 2]]}})).execution
    assert isinstance(poses, PosesExecution)
    assert (poses.poses[1], poses.steps, poses.pose_duration_s) == ((1.0, 0.5), None, 3.0)
    timed = load_metadata(_write(path, {"type": "poses", "execution": {"poses": [[0.5]], "steps": 4}})).execution
    assert timed.pose_duration_s == 4.0


def test_an_empty_pose_is_no_pose_and_any_length_is_one(path):
    execution = load_metadata(_write(path, _learned(start_pose=[], end_pose=[0, 1, 2]))).execution
    assert (execution.start_pose, execution.end_pose) == (None, (0.0, 1.0, 2.0))


@pytest.mark.parametrize(
    ("execution", "says"),
    [
        ({"duration": 0}, "execution.duration is 0, expected greater than 0"),
        ({"duration": True}, "execution.duration is True, expected a number"),
        ({"duration": "45"}, "execution.duration is '45', expected a number"),
        ({"duration": 10**400}, "expected a finite number"),
        ({"action_dim": 0}, "execution.action_dim is 0"),
        ({"action_dim": 65}, "execution.action_dim is 65"),
        ({"action_dim": 9.5}, "expected a whole number"),
        ({"action_dim": True}, "execution.action_dim is True"),
        ({"progress_threshold": -0.1}, "execution.progress_threshold is -0.1"),
        ({"progress_hold_ticks": 0}, "execution.progress_hold_ticks is 0"),
        ({"n_action_steps": 0}, "execution.n_action_steps is 0"),
        ({"chunk_mode": "jump"}, "execution.chunk_mode is 'jump', expected 'blend', 'ensemble' or 'receding'"),
        ({"chunk_mode": 1}, "execution.chunk_mode is 1, expected 'blend', 'ensemble' or 'receding'"),
        ({"speed": 0.05}, "execution.speed is 0.05, expected greater than or equal to 0.1"),
        ({"speed": 2.5}, "execution.speed is 2.5"),
        ({"start_pose": [0, None]}, "execution.start_pose.1 is None, expected a number"),
        ({"start_pose": [0, False]}, "execution.start_pose.1 is False"),
        ({"start_pose": "home"}, "execution.start_pose is 'home', expected a list"),
        ({"start_pose_time": 0}, "execution.start_pose_time is 0"),
        ({"settle_tolerance_rad": 0}, "execution.settle_tolerance_rad is 0"),
        ({"hold_s": -1}, "execution.hold_s is -1"),
        ({"checkpoint": ""}, "execution.checkpoint is '', expected a text that is not empty"),
        ({"checkpoint": 3}, "execution.checkpoint is 3, expected a text"),
        ({"legacy_runtime": "yes"}, "execution.legacy_runtime is 'yes'"),
    ],
)
def test_a_wrong_value_is_named(path, execution, says):
    with pytest.raises(MetadataError) as error:
        load_metadata(_write(path, _learned(**execution)))
    assert says in str(error.value)
    assert str(path) in str(error.value)
    assert "Correct it" in str(error.value)


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({}, "type is missing"),
        ({"type": "dance"}, "type is 'dance', expected 'learned', 'replay' or 'poses'"),
        ({"type": "learned", "name": 3}, "name is 3, expected a text"),
        ({"type": "learned", "inputs": {"object": 1}}, "inputs.object is 1"),
        ({"type": "learned", "execution": []}, "execution is [], expected an object"),
        ({"type": "replay", "execution": {"replay_frequency": 0}}, "execution.replay_frequency is 0"),
        ({"type": "poses", "execution": {"poses": [[]]}}, "execution.poses.0 is []"),
        ({"type": "poses", "execution": {"poses": [0.1, 0.2]}}, "execution.poses.0 is 0.1, expected a list"),
        ({"type": "poses", "execution": {"poses": [[0.1]], "steps": 0}}, "execution.steps is 0"),
    ],
)
def test_a_wrong_document_is_named(path, document, says):
    with pytest.raises(MetadataError) as error:
        load_metadata(_write(path, document))
    assert says in str(error.value)


def test_whole_numbers_may_be_written_as_floats(path):
    assert load_metadata(_write(path, _learned(action_dim=10.0))).execution.action_dim == 10


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty"),
        (b" \n", "empty"),
        (b'{"type": "lear', "not valid JSON"),
        (b"[1, 2]", "a JSON array, expected an object"),
        (b"null", "a JSON null"),
        (b'"x"', "a JSON string"),
        (b"\xff\xfe{}", "not UTF-8"),
        (b'{"type": "learned", "execution": {"duration": NaN}}', "NaN is not a JSON number"),
        (b'{"type": "learned", "x": -Infinity}', "-Infinity"),
        (b'{"type": "learned", "x": 1e999}', "1e999 is too large"),
        (b"[" * 100_000, "not valid JSON"),
        (b'{"type": "learned", "x": "' + b"a" * (1 << 20) + b'"}', "larger than 1024 KiB"),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else None,
)
def test_a_file_that_cannot_be_read_is_named_and_left_alone(path, content, says):
    path.write_bytes(content)
    for attempt in (lambda: load_metadata(path), lambda: update_metadata(path, name="x")):
        with pytest.raises(MetadataError) as error:
            attempt()
        assert says in str(error.value)
        assert str(path) in str(error.value)
        assert "Restore" in str(error.value)
    assert path.read_bytes() == content


def test_reading_creates_nothing(path):
    for absent in (path, path.parent / "none" / "metadata.json", path.parent):
        with pytest.raises(MetadataError, match="cannot be read"):
            load_metadata(absent)
    assert list(path.parent.iterdir()) == []
    with pytest.raises(MetadataError, match="no such skill directory"):
        update_metadata(path.parent / "none" / "metadata.json", name="x")


def test_a_byte_order_mark_is_no_error(path):
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(_learned()).encode())
    assert load_metadata(path).name == "Cup"


def test_the_file_is_indented_and_ends_with_a_newline(path):
    save_metadata(path, SkillMetadata(name="Tasse ☕", type="learned"))
    assert path.read_text(encoding="utf-8") == '{\n    "name": "Tasse ☕",\n    "type": "learned"\n}\n'


OLD = {
    "zebra": [1, {"deep": None}],
    "execution": {"runtime": "opt32", "duration": 45, "start_pose": [], "model_type": "act", "n_action_steps": None},
    "type": "learned",
    "name": "Cup",
    "training_skill_id": "8f0e",
}


def test_a_rewrite_keeps_order_and_unknown_fields(path):
    _write(path, OLD)
    save_metadata(path, load_metadata(path))
    assert json.dumps(json.loads(path.read_text())) == json.dumps(OLD)
    updated = update_metadata(path, guidelines="Grip it", execution={"duration": 30, "hold_s": 1})
    expected = dict(OLD, guidelines="Grip it", execution={**OLD["execution"], "duration": 30, "hold_s": 1})
    assert json.dumps(json.loads(path.read_text())) == json.dumps(expected)
    assert updated.execution.hold_s == 1.0
    assert load_metadata(path) == updated


def test_what_was_changed_unchecked_is_checked_when_saved(path):
    metadata = load_metadata(_write(path, OLD))
    before = path.read_bytes()
    with pytest.raises(MetadataError, match="name is 3"):
        save_metadata(path, metadata.model_copy(update={"name": 3}))
    assert path.read_bytes() == before


def test_a_change_by_a_function(path):
    _write(path, OLD)
    update_metadata(path, lambda m: m.model_copy(update={"name": m.name + "s"}))
    expected = dict(OLD, name="Cups")
    assert json.dumps(json.loads(path.read_text())) == json.dumps(expected)


@pytest.mark.parametrize(
    "change",
    [
        {"execution": {"duration": -1}},
        {"execution": {"start_pose": [float("nan")]}},
        {"type": "dance"},
        {"name": 5},
    ],
)
def test_a_change_that_would_be_wrong_is_refused(path, change):
    _write(path, OLD)
    before = path.read_bytes()
    with pytest.raises(MetadataError):
        update_metadata(path, **change)
    with pytest.raises(MetadataError):
        update_metadata(path, lambda m: m.model_copy(update={"type": "dance"}))
    assert path.read_bytes() == before


def test_a_kill_while_writing_leaves_the_old_file(path, monkeypatch):
    _write(path, OLD)
    before = path.read_bytes()
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        update_metadata(path, name="x")
    assert path.read_bytes() == before
    assert sorted(p.name for p in path.parent.iterdir()) == [".metadata.lock", "metadata.json"]


def test_two_writers_lose_nothing(path):
    _write(path, _learned())

    def count(field: str) -> None:
        for _ in range(15):
            update_metadata(
                path, lambda m: m.model_copy(update={"inputs": m.inputs | {field: m.inputs.get(field, "") + "x"}})
            )

    threads = [threading.Thread(target=count, args=(name,)) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert load_metadata(path).inputs == {"a": "x" * 15, "b": "x" * 15}


def test_two_processes_lose_nothing(path):
    _write(path, {"type": "learned", "count": 0})
    children = []
    for _ in range(3):
        if (child := os.fork()) == 0:
            try:
                for _ in range(10):
                    update_metadata(
                        path,
                        lambda m: SkillMetadata.from_document(
                            m.to_document() | {"count": m.to_document()["count"] + 1}, path
                        ),
                    )
            finally:
                os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
    assert json.loads(path.read_text())["count"] == 30


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
_unknown = st.dictionaries(
    st.text(max_size=10).filter(lambda key: key not in SkillMetadata.model_fields and key not in _FIELDS), _json
)
_FIELDS = {name for kind in (LearnedExecution, ReplayExecution, PosesExecution) for name in kind.model_fields}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(top=_unknown, inner=_unknown, kind=st.sampled_from(["learned", "replay", "poses"]))
def test_any_unknown_field_survives_a_rewrite(path, top, inner, kind):
    document = {**top, "type": kind, "execution": inner}
    _write(path, document)
    update_metadata(path, name="New", execution={"speed": 0.5})
    expected = {**top, "type": kind, "execution": {**inner, "speed": 0.5}, "name": "New"}
    assert json.dumps(json.loads(path.read_text())) == json.dumps(expected)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    document=st.dictionaries(st.sampled_from([*SkillMetadata.model_fields]), _json)
    | st.fixed_dictionaries(
        {"type": st.sampled_from(["learned", "replay", "poses"])},
        optional={"execution": st.dictionaries(st.sampled_from(sorted(_FIELDS)), _json)},
    )
)
def test_any_document_is_read_or_refused(path, document):
    _write(path, document)
    try:
        metadata = load_metadata(path)
    except MetadataError:
        return
    save_metadata(path, metadata)
    assert json.loads(path.read_text()) == document


@pytest.fixture
def skill(tmp_path) -> Path:
    (tmp_path / "run-1" / "deep").mkdir(parents=True)
    for name in ("run-1/act.pth", "run-1/dataset_stats.pt", "run-1/deep/act.pth"):
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


def test_activating_a_run_fills_what_is_null(skill, path):
    _write(path, OLD)
    fill = {"action_dim": 10, "start_pose": [0, 1], "duration": 7.0, "n_action_steps": None}
    execution = activate(skill, "run-1", "act.pth", "dataset_stats.pt", fill=fill).execution
    assert (execution.checkpoint, execution.stats_file) == ("run-1/act.pth", "run-1/dataset_stats.pt")
    assert (execution.action_dim, execution.start_pose, execution.duration) == (10, (0.0, 1.0), 45.0)
    written = json.loads(path.read_text())
    assert list(written) == list(OLD)
    assert written["execution"]["start_pose"] == [0.0, 1.0]
    assert written["execution"]["runtime"] == "opt32"


def test_activating_another_run_keeps_what_a_person_set(skill, path):
    _write(path, _learned(action_dim=8, start_pose=[3, 4], checkpoint="old/x.pth"))
    fill = {"action_dim": 10, "start_pose": [0, 1], "duration": 7.0}
    execution = activate(skill, "run-1", "deep/act.pth", "dataset_stats.pt", fill=fill).execution
    assert execution.checkpoint == "run-1/deep/act.pth"
    assert (execution.action_dim, execution.start_pose) == (8, (3.0, 4.0))


@pytest.mark.parametrize(("written", "expected"), [(None, 7.0), (120.0, 120.0), (3.0, 3.0)])
def test_a_duration_that_a_person_set_stays_even_the_default_one(skill, path, written, expected):
    _write(path, _learned(duration=written, n_action_steps=None))
    execution = activate(
        skill, "run-1", "act.pth", "dataset_stats.pt", fill={"duration": 7.0, "n_action_steps": 12}
    ).execution
    assert (execution.duration, execution.n_action_steps) == (expected, 12)


@pytest.mark.parametrize(
    ("run", "checkpoint", "error"),
    [
        ("run-1", "missing.pth", MetadataError),
        ("run-2", "act.pth", MetadataError),
        ("run-1", "../metadata.json", PathEscapesError),
        ("..", "act.pth", PathEscapesError),
        ("run-1", "/etc/passwd", PathEscapesError),
    ],
)
def test_a_run_that_cannot_be_activated_changes_nothing(skill, path, run, checkpoint, error):
    before = _write(path, OLD).read_bytes()
    with pytest.raises(error):
        activate(skill, run, checkpoint, "dataset_stats.pt")
    assert path.read_bytes() == before


def test_only_a_learned_skill_can_be_activated(skill, path):
    _write(path, {"type": "replay"})
    with pytest.raises(BtruntimeError, match="type is 'replay', expected 'learned'"):
        activate(skill, "run-1", "act.pth", "dataset_stats.pt")
