"""`metadata.json` files of robots of the reference kind, of many ages: read, or refused with a reason; never harmed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from skills.episodes import list_episodes
from skills.metadata import (
    LearnedExecution,
    MetadataError,
    PosesExecution,
    ReplayExecution,
    SkillMetadata,
    load_metadata,
    save_metadata,
    update_metadata,
)
from skills.store import SkillStore

DATA = Path(__file__).parents[3] / "shared" / "data"
FILES = sorted([*(DATA / "metadata_json").glob("*.json"), *DATA.glob("*/metadata.json")])

pytestmark = pytest.mark.skipif(not FILES, reason="the real data is not here")


@pytest.mark.parametrize("source", FILES, ids=lambda path: path.stem)
def test_a_rewrite_keeps_every_field_as_it_was(source, tmp_path):
    path = Path(shutil.copy(source, tmp_path / "metadata.json"))
    save_metadata(path, load_metadata(path))
    before = json.loads(source.read_text())
    assert json.dumps(json.loads(path.read_text())) == json.dumps(before)
    update_metadata(path, guidelines_when_running="changed", execution={"speed": 0.5})
    before["guidelines_when_running"] = "changed"
    before["execution"]["speed"] = 0.5
    assert json.dumps(json.loads(path.read_text())) == json.dumps(before)


@pytest.mark.parametrize("source", FILES, ids=lambda path: path.stem)
def test_each_field_that_is_spoilt_is_named_and_the_file_is_left_alone(source, tmp_path):
    path, document = tmp_path / "metadata.json", json.loads(source.read_text())
    known = [*SkillMetadata.model_fields, *type(load_metadata(source).execution).model_fields]
    places = [(document, "", name) for name in document] + [
        (document["execution"], "execution.", name) for name in document["execution"]
    ]
    spoilt = 0
    for owner, prefix, name in places:
        if name not in known:
            continue
        before = owner[name]
        # No field is a list of lists of texts.
        owner[name] = [["spoilt"]]
        content = json.dumps(document)
        path.write_text(content)
        with pytest.raises(MetadataError) as refused:
            update_metadata(path, guidelines_when_running="changed")
        assert str(refused.value).startswith(f"{path}: ")
        assert prefix + name in str(refused.value)
        assert path.read_text() == content
        owner[name] = before
        spoilt += 1
    assert spoilt >= 3


def test_what_they_say_is_understood():
    def execution(name: str) -> object:
        return load_metadata(DATA / "metadata_json" / f"{name}.json").execution

    socks, poses, wave = execution("skills_pick_socks"), execution("primitives_drop_paper"), execution("skills_wave")
    assert isinstance(socks, LearnedExecution)
    assert (socks.duration, socks.action_dim, socks.end_pose) == (45.0, 10, None)
    assert socks.start_pose == (-0.015, -0.399, 1.456, -1.135, -0.023, 0.833)
    assert isinstance(poses, PosesExecution)
    assert (len(poses.poses), poses.pose_duration_s) == (3, 3.0)
    assert isinstance(wave, ReplayExecution)
    assert (wave.replay_file, wave.replay_frequency) == ("episode_0.h5", 50.0)
    assert execution("skills_opt32_act").progress_threshold == 2.0


def test_as_skills_they_are_listed_each_with_what_it_lacks(tmp_path):
    for source in (DATA / "metadata_json").glob("*.json"):
        (tmp_path / source.stem).mkdir()
        shutil.copy(source, tmp_path / source.stem / "metadata.json")
    entries = {entry.id.name: entry for entry in SkillStore(tmp_path, tmp_path / "none").scan()}
    assert len(entries) == len(list((DATA / "metadata_json").glob("*.json")))
    assert all(entry.in_training for entry in entries.values() if entry.kind == "learned")
    assert "'episode_0.h5', which does not exist" in str(entries["skills_wave"].problem)
    assert entries["primitives_give_object"].runnable


def test_recordings_of_the_reference_robot_are_listed_as_those_of_another_program():
    data_dir = DATA / "mars_h264" / "data"
    episodes = list_episodes(data_dir)
    assert [episode.episode_id for episode in episodes] == [0, 1]
    assert all("recording of another program" in str(episode.problem) for episode in episodes)
