from __future__ import annotations

import h5py
import pytest

from btruntime.dataset.formats import load_mapping, open_source
from btruntime.dataset.source import DatasetError


@pytest.mark.parametrize(
    ("names", "why"),
    [
        ([], "it holds nothing; read are LeRobot v2.0 and v2.1"),
        ([f"{letter}.txt" for letter in "abcdefghijk"], r"it holds a\.txt, b\.txt, .* and 3 more; read are"),
        (["episode_0.hdf5"], "ALOHA's recordings .* are not read yet"),
    ],
)
def test_what_is_no_dataset_is_said_with_what_was_found(tmp_path, names, why):
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(DatasetError, match=why):
        open_source(tmp_path)


def test_no_directory(tmp_path):
    with pytest.raises(DatasetError, match="no such directory, expected one that holds LeRobot"):
        open_source(tmp_path / "nowhere")


@pytest.mark.parametrize(("attribute", "why"), [("schema", "needs no import"), ("sim", "ALOHA's recordings")])
def test_files_of_the_same_name_are_told_apart(tmp_path, attribute, why):
    (tmp_path / "episode_0.h5").write_text("damaged")
    with h5py.File(tmp_path / "episode_1.h5", "w") as file:
        file.attrs[attribute] = 1
    with pytest.raises(DatasetError, match=why):
        open_source(tmp_path)


@pytest.mark.parametrize(
    ("name", "text"), [("map.json", '{"robot": "a", "state_scale": 2}'), ("map.yaml", "robot: a\nstate_scale: 2\n")]
)
def test_a_mapping_is_json_or_yaml(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    mapping = load_mapping(tmp_path / name)
    assert (mapping.robot, mapping.state_scale) == ("a", 2)


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("map.json", "{", "cannot be read as JSON or YAML"),
        ("map.yaml", "{", "cannot be read as JSON or YAML"),
        ("map.yaml", "!!python/object/apply:os.system [ls]", "cannot be read as JSON or YAML"),
        ("map.yaml", "", "the whole is None"),
        ("map.yaml", "robots: a", "robots is 'a'.*Fields: robot, joints"),
        ("map.yaml", "joints: [a, a]", "two joints have the same name"),
        ("map.yaml", "state_scale: 0", "a scale is 0"),
        ("map.yaml", "action: {a: {kind: push, unit: rad}}", "action.a.kind is 'push'"),
        ("map.yaml", "robot: ../x", "robot is '../x'"),
        ("gone.yaml", None, "cannot be read as JSON or YAML"),
    ],
)
def test_a_bad_mapping_is_refused(tmp_path, name, text, why):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(DatasetError, match=why) as caught:
        load_mapping(tmp_path / name)
    assert name in str(caught.value)
