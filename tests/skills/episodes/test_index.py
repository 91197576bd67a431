from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from foundation.files import sha256_of
from skills.episodes import Episode, EpisodeError, list_episodes, rebuild_index, set_labels
from skills.episodes.index import INDEX_NAME, EpisodeIndexError, index_episode


def _index(data_dir: Path) -> dict:
    return json.loads((data_dir / INDEX_NAME).read_text())


@pytest.fixture
def data_dir(tmp_path) -> Path:
    return tmp_path / "data"


def test_the_index_follows_each_episode(record, data_dir):
    record(3, outcome="success")
    record(4)
    index = _index(data_dir)
    assert (index["schema"], index["number_of_episodes"], index["data_frequency"]) == (1, 2, 30.0)
    assert index["dataset_type"] == "h5"
    first, second = index["episodes"]
    assert (first["episode_id"], first["file_name"], first["length"]) == (0, "episode_0.h5", 3)
    assert (first["outcome"], second["outcome"]) == ("success", "unlabelled")
    assert first["start_timestamp"] == "2026-03-04T05:06:07.890Z"
    assert first["end_timestamp"] == "2026-03-04T05:06:09.000Z"
    assert first["duration_s"] == pytest.approx(2 / 30, abs=1e-6)
    assert first["sha256"] == sha256_of(data_dir / "episode_0.h5")
    assert (data_dir / INDEX_NAME).read_text().endswith("}\n")


def test_a_new_episode_opens_and_hashes_no_other(record, data_dir, monkeypatch):
    record(3)
    opened, hashed = [], []
    monkeypatch.setattr("skills.episodes.index.Episode", lambda path: opened.append(path.name) or Episode(path))
    monkeypatch.setattr("skills.episodes.index.sha256_of", lambda path: hashed.append(path.name) or sha256_of(path))
    record(3)
    assert (opened, hashed) == (["episode_1.h5"], ["episode_1.h5"])
    list_episodes(data_dir)
    assert opened == ["episode_1.h5"]


def test_revisions_count_up_and_only_when_something_changed(record, data_dir):
    record(2)
    assert _index(data_dir)["revision"] == 1
    rebuild_index(data_dir)
    assert _index(data_dir)["revision"] == 1
    record(2)
    assert _index(data_dir)["revision"] == 2


@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b"\xff\xfe", b'{"episodes": 3}', b'{"revision": NaN}'])
def test_a_missing_or_corrupt_index_is_rebuilt(record, data_dir, content):
    record(2)
    record(3)
    if content is None:
        (data_dir / INDEX_NAME).unlink()
    else:
        (data_dir / INDEX_NAME).write_bytes(content)
    assert [e.length for e in list_episodes(data_dir)] == [2, 3]
    assert [e.length for e in rebuild_index(data_dir)] == [2, 3]
    assert [e["length"] for e in _index(data_dir)["episodes"]] == [2, 3]
    kept = list(data_dir.glob(f"{INDEX_NAME}.corrupt-*"))
    assert [k.read_bytes() for k in kept] == ([] if content is None else [content])


def test_corrupt_copies_replace_nothing(record, data_dir):
    record(1)
    for content in (b"one", b"two", b"two"):
        (data_dir / INDEX_NAME).write_bytes(content)
        rebuild_index(data_dir)
    assert sorted(k.read_bytes() for k in data_dir.glob("*.corrupt-*")) == [b"one", b"two"]


def test_listing_writes_nothing(record, data_dir):
    record(2)
    (data_dir / INDEX_NAME).unlink()
    before = sorted(data_dir.iterdir())
    assert [e.length for e in list_episodes(data_dir)] == [2]
    assert sorted(data_dir.iterdir()) == before
    assert list_episodes(data_dir / "none") == []
    assert not (data_dir / "none").exists()


def test_an_episode_that_came_or_went_is_noticed(record, data_dir):
    record(2)
    record(3)
    shutil.copy(data_dir / "episode_1.h5", data_dir / "episode_5.h5")
    (data_dir / "episode_0.h5").unlink()
    assert [(e.episode_id, e.length) for e in list_episodes(data_dir)] == [(1, 3), (5, 3)]
    rebuild_index(data_dir)
    index = _index(data_dir)
    assert [e["episode_id"] for e in index["episodes"]] == [1, 5]
    assert index["number_of_episodes"] == 2


def test_an_episode_that_was_replaced_is_read_again(record, data_dir):
    record(2)
    record(3)
    old = _index(data_dir)["episodes"][0]["sha256"]
    os.replace(data_dir / "episode_1.h5", data_dir / "episode_0.h5")
    assert [e.length for e in rebuild_index(data_dir)] == [3]
    assert _index(data_dir)["episodes"][0]["sha256"] != old


def test_a_broken_episode_hides_no_other(record, data_dir):
    record(2)
    (data_dir / "episode_1.h5").write_bytes(b"junk")
    record(3)
    listed = list_episodes(data_dir)
    assert [(e.episode_id, e.length) for e in listed] == [(0, 2), (1, 0), (2, 3)]
    assert "episode_1.h5: not an HDF5 file" in str(listed[1].problem)
    assert [e["episode_id"] for e in _index(data_dir)["episodes"]] == [0, 2]


def test_an_episode_that_breaks_keeps_its_entry(record, data_dir):
    record(2)
    entry = _index(data_dir)["episodes"][0]
    (data_dir / "episode_0.h5").write_bytes(b"junk")
    assert rebuild_index(data_dir)[0].problem
    assert _index(data_dir)["episodes"] == [entry]


def test_unknown_fields_survive(record, data_dir):
    record(2)
    index = _index(data_dir)
    index["task_name"] = "cups"
    index["episodes"][0]["operator"] = {"name": "Ö"}
    (data_dir / INDEX_NAME).write_text(json.dumps(index))
    record(2)
    (data_dir / "episode_0.json").write_text('{"outcome": "failure"}')
    rebuild_index(data_dir)
    index = _index(data_dir)
    assert index["task_name"] == "cups"
    assert index["episodes"][0]["operator"] == {"name": "Ö"}
    assert index["episodes"][0]["outcome"] == "failure"


def test_a_writer_that_came_in_between_is_not_overwritten(record, data_dir, monkeypatch):
    record(2)
    other = _index(data_dir)

    def meanwhile(path, progress=None):
        if other["revision"] == 1:
            other["revision"] = 2
            other["theirs"] = True
            (data_dir / INDEX_NAME).write_text(json.dumps(other))
        return sha256_of(path, progress)

    monkeypatch.setattr("skills.episodes.index.sha256_of", meanwhile)
    record(2)
    index = _index(data_dir)
    assert (index["revision"], index["theirs"], index["number_of_episodes"]) == (3, True, 2)


def test_a_writer_that_never_ends_is_an_error(record, data_dir, monkeypatch):
    path = record(1)
    index = _index(data_dir)

    def always(_):
        index["revision"] += 1
        (data_dir / INDEX_NAME).write_text(json.dumps(index))
        return "0" * 64

    monkeypatch.setattr("skills.episodes.index.sha256_of", always)
    os.utime(path, ns=(1, 1))
    with pytest.raises(EpisodeIndexError, match="rewrites it all the time"):
        index_episode(path)


def test_labels_change_without_touching_the_episode(record, data_dir):
    path = record(2)
    before = path.read_bytes()
    path.with_suffix(".json").write_text('{"outcome": null, "grade": 5}')
    labels = set_labels(path, outcome="failure", note="too fast")
    assert (labels.outcome, labels.note, labels.trash) == ("failure", "too fast", False)
    assert json.loads(path.with_suffix(".json").read_text())["grade"] == 5
    assert _index(data_dir)["episodes"][0]["outcome"] == "failure"
    assert path.read_bytes() == before


def test_labels_that_make_no_sense_are_refused(record, data_dir):
    path = record(2)
    with pytest.raises(EpisodeError, match="outcome is 'maybe'"):
        set_labels(path, outcome="maybe")
    with pytest.raises(EpisodeError, match=r"no such episode.*episode_0\.h5"):
        set_labels(data_dir / "episode_3.h5", outcome="success")
    path.with_suffix(".json").write_text('{"outcome": "great"}')
    (listed,) = list_episodes(data_dir)
    assert "episode_0.json: outcome is 'great'" in str(listed.problem)


def test_videos_beside_it_are_listed_and_stripped_images_show(record, data_dir):
    import h5py

    path = record(2)
    with h5py.File(path, "r+") as file:
        del file["images"]
    for camera in ("main_camera", "arm_camera"):
        (data_dir / f"episode_0_{camera}.mp4").write_bytes(b"")
    (summary,) = rebuild_index(data_dir)
    assert summary.video_files == ("episode_0_arm_camera.mp4", "episode_0_main_camera.mp4")
    assert _index(data_dir)["dataset_type"] == "h264"


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
_names = [
    "schema",
    "revision",
    "episodes",
    "data_frequency",
    "episode_id",
    "file_name",
    "length",
    "size_bytes",
    "sha256",
]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    index=st.dictionaries(st.sampled_from(_names), _json | st.lists(st.dictionaries(st.sampled_from(_names), _json)))
)
def test_any_index_is_survived(record, data_dir, index):
    if not (data_dir / "episode_0.h5").exists():
        record(2)
    (data_dir / INDEX_NAME).write_text(json.dumps(index))
    assert [e.length for e in list_episodes(data_dir)] == [2]
    assert [e.length for e in rebuild_index(data_dir)] == [2]
    assert _index(data_dir)["number_of_episodes"] == 1


def test_the_files_decide_number_and_name(record, data_dir):
    record(2)
    index = _index(data_dir)
    index["episodes"][0]["file_name"] = "../../x"
    index["episodes"].append(index["episodes"][0] | {"episode_id": 0})
    (data_dir / INDEX_NAME).write_text(json.dumps(index))
    (episode,) = list_episodes(data_dir)
    assert (episode.episode_id, episode.file_name, episode.problem) == (0, "episode_0.h5", None)
    rebuild_index(data_dir)
    assert [entry["file_name"] for entry in _index(data_dir)["episodes"]] == ["episode_0.h5"]
    with (data_dir / "episode_0.h5").open("r+b") as file:
        file.truncate(100)
    index["episodes"][0]["file_name"] = "../../x"
    (data_dir / INDEX_NAME).write_text(json.dumps(index))
    rebuild_index(data_dir)
    assert [entry["file_name"] for entry in _index(data_dir)["episodes"]] == ["episode_0.h5"]
