from __future__ import annotations

import builtins
import json
import math
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from btruntime.dataset.formats import SourceMapping, open_source
from btruntime.dataset.source import DatasetError
from hal.types import ActionKind
from skills.episodes import Episode, save_episode

MISSING_EPISODE = "episode_000001.parquet, episode_000001.mp4 of observation.images.top is not there."


def changed(lerobot, **changes):
    """Write the dataset with some fields of info.json replaced."""
    lerobot.info |= changes
    return lerobot.write()


def test_an_episode_is_converted_and_can_be_saved(lerobot, tmp_path):
    source = open_source(lerobot.add(0).add(2, steps=7).write())
    assert (source.format, source.name, source.task) == ("LeRobot v2.1", "cups", "pick up the cup")
    assert (source.present, source.missing) == ((0, 2), {})
    found = source.read(2)
    header, rows = found.header, found.rows
    assert (header.robot, header.data_frequency_hz, header.joint_names) == ("two_joints", 10.0, ("shoulder", "elbow"))
    assert (header.source, header.has_base, header.camera_names) == ("import", False, ("top",))
    assert [(dim.kind, dim.unit, dim.target) for dim in header.action.dims] == [
        (ActionKind.JOINT_VELOCITY, "rad/s", "shoulder"),
        (ActionKind.JOINT_VELOCITY, "rad/s", "elbow"),
        (ActionKind.GRIPPER, "1", "gripper"),
    ]
    assert (header.action.dims[2].low, header.action.dims[2].high) == (0, 1)
    assert (header.origin.episode, header.origin.dataset) == (2, "cups")
    times_s = lerobot.times[2].astype(np.float32).astype(float)
    np.testing.assert_allclose(rows["timestamps/step"], times_s - times_s[0])
    np.testing.assert_allclose(rows["qpos"], lerobot.states[2], atol=1e-6)
    np.testing.assert_allclose(rows["qvel"], 0.1, atol=1e-4)
    np.testing.assert_array_equal(rows["applied_action"], rows["action"])
    path = save_episode(tmp_path / "data", header, rows, videos=found.videos, number=2)
    with Episode(path) as episode:
        assert (episode.number, len(episode)) == (2, 7)
        red, _, blue = episode.frame("top", 3)[8, 12]
        assert red > 150 > 80 > blue


def test_what_is_not_there_is_listed_and_not_read(lerobot):
    lerobot.add(0).add(1).write()
    lerobot.table_path(1).unlink()
    lerobot.video_path(1).unlink()
    source = open_source(lerobot.root)
    assert (source.present, source.missing) == ((0,), {1: MISSING_EPISODE})
    for number, why in ((1, "episode 1: episode_000001.parquet"), (5, "there is no episode 5")):
        with pytest.raises(DatasetError, match=why):
            source.read(number)


def test_pictures_in_the_table_become_rgb_frames(lerobot, tmp_path):
    lerobot.camera = "image"
    found = open_source(lerobot.add(0, steps=12).write()).read(0)
    assert not found.videos
    for _ in range(2):  # Each call starts anew.
        frames = list(found.frames["top"]())
        assert [tuple(frame[0, 0]) for frame in frames] == [(index, 100, 200) for index in range(12)]
    save_episode(tmp_path / "data", found.header, found.rows, frames={"top": found.frames["top"]()})


@pytest.mark.parametrize(
    "names",
    [
        {"motors": ["shoulder", "elbow"]},
        {"elbow": 1, "shoulder": 0},
        [["shoulder", "elbow"]],
        ["shoulder.pos", "elbow_pos"],
    ],
)
def test_names_come_in_many_forms(lerobot, names):
    lerobot.state_names = names
    assert open_source(lerobot.add().write()).read(0).header.joint_names == ("shoulder", "elbow")


def test_positions_and_a_gripper_joint(lerobot):
    lerobot.state_names, lerobot.action_names = ["pan.pos", "gripper.pos"], ["pan.pos", "gripper.pos"]
    dims = open_source(lerobot.add(action_width=2).write()).read(0).header.action.dims
    assert [(dim.name, dim.kind, dim.unit, dim.target) for dim in dims] == [
        ("pan.pos", ActionKind.JOINT_POSITION, "rad", "pan"),
        ("gripper.pos", ActionKind.GRIPPER, "rad", "gripper"),
    ]


def test_a_base_that_does_not_go_sideways(lerobot):
    lerobot.state_names = ["pan.pos", "x.vel", "y.vel", "theta.vel"]
    lerobot.action_names = ["pan.pos", "x.vel", "y.vel", "theta.vel"]
    lerobot.add(state_width=4, action_width=4)
    with pytest.raises(DatasetError, match=r"y\.vel moves the base sideways.*leave_out"):
        open_source(lerobot.write())
    shutil.rmtree(lerobot.root)
    lerobot.actions[0][:, 2] = 0
    source = open_source(lerobot.write())
    header = source.read(0).header
    assert header.joint_names == ("pan",)
    assert [dim.target for dim in header.action.dims] == ["pan", "linear", "angular"]
    assert any("y.vel of the action was always 0" in note for note in source.notes)
    assert any("x.vel, y.vel, theta.vel of observation.state was left out" in note for note in source.notes)


def test_measured_velocities_are_taken(lerobot):
    lerobot.state_names = ["a.pos", "b.pos", "a.vel", "b.vel"]
    lerobot.action_names = ["a.pos", "b.pos"]
    lerobot.add(state_width=4, action_width=2)
    lerobot.states[0][:, 2:] = 0.25
    source = open_source(lerobot.write())
    assert (source.read(0).rows["qvel"] == 0.25).all()
    assert not any("qvel" in note for note in source.notes)


def test_a_column_of_velocities_is_taken(lerobot):
    lerobot.add(steps=3)
    lerobot.extra_features["observation.velocity"] = {"dtype": "float32", "shape": [2], "names": None}
    lerobot.extra_columns["observation.velocity"] = pa.array([[0.5, 0.75]] * 3)
    assert (open_source(lerobot.write()).read(0).rows["qvel"] == (0.5, 0.75)).all()


def test_the_true_frequency_is_that_of_all_episodes(lerobot):
    for number, rate_hz in enumerate((8, 8, 8)):
        lerobot.add(number, steps=20)
        lerobot.times[number] = np.arange(20) / rate_hz + 0.003 * np.cos(np.arange(20))
    lerobot.times[1][10:] += 30.0  # A pause says nothing about the rate.
    source = open_source(lerobot.write())
    assert {source.read(number).header.data_frequency_hz for number in source.present} == {8.0}
    assert "The dataset states 10 Hz, its times show 8.0 Hz, which was taken." in source.notes


def test_times_that_nobody_measured_are_told(lerobot):
    lerobot.add()
    lerobot.times[0] = np.arange(12) / 10
    assert any("frame numbers divided by" in note for note in open_source(lerobot.write()).notes)
    lerobot.times[0][5] += 0.02
    lerobot.write_episode(0)
    assert not any("frame numbers divided by" in note for note in open_source(lerobot.root).notes)


def test_degrees_are_refused_until_a_mapping_says_so(lerobot):
    lerobot.action_names = ["shoulder", "elbow", "gripper"]
    lerobot.add()
    lerobot.states[0] *= 57
    lerobot.actions[0][:, :2] *= 90
    with pytest.raises(DatasetError, match=r"elbow from 57 to .*no angles in rad.*\"state_scale\": 0\.017453"):
        open_source(lerobot.write())
    found = open_source(lerobot.root, SourceMapping(state_scale=math.radians(1))).read(0)
    np.testing.assert_allclose(found.rows["qpos"], np.radians(lerobot.states[0]), rtol=1e-5)
    assert found.rows["action"][:, 0].max() == pytest.approx(math.pi / 2, rel=1e-5)
    assert found.rows["action"][:, 2].max() == 1  # The gripper is no angle.


def test_a_mapping_says_everything(lerobot):
    lerobot.state_names = lerobot.action_names = None
    lerobot.add()
    with pytest.raises(DatasetError, match=r"its 2 numbers have no names.*--map"):
        open_source(lerobot.write())
    with pytest.raises(DatasetError, match=r"0 has no name; 1 has no name; 2 has no name.*\"0\": \{"):
        open_source(lerobot.root, SourceMapping(joints=("a", "b")))
    mapping = SourceMapping.model_validate(
        {
            "robot": "arm-7",
            "joints": ["a", "b"],
            "state_scale": [1, 0.5],
            "action": {
                "0": {"kind": "joint_position", "unit": "rad", "target": "a", "scale": 2},
                "2": {"kind": "gripper", "unit": "1", "target": "hand", "name": "hand", "low": 0, "high": 1},
            },
            "leave_out": ["1"],
            "cameras": {"top": "main_camera"},
        }
    )
    with pytest.raises(DatasetError, match=r"has 1 numbers .* names 2 joints"):
        open_source(lerobot.root, mapping)
    mapping = mapping.model_copy(update={"joints": ("a",), "state_scale": 3.0})
    found = open_source(lerobot.root, mapping).read(0)
    assert (found.header.robot, found.header.joint_names, found.header.camera_names) == (
        "arm-7",
        ("a",),
        ("main_camera",),
    )
    assert found.header.action.names == ("action_0", "hand")
    assert set(found.videos) == {"main_camera"}
    np.testing.assert_allclose(found.rows["action"], lerobot.actions[0][:, [0, 2]] * (2, 1), atol=1e-6)
    np.testing.assert_allclose(found.rows["qpos"], lerobot.states[0][:, :1] * 3, atol=1e-6)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"action": {"wrist": {"kind": "gripper", "unit": "1"}}}, "the mapping says what wrist"),
        ({"action": {"gripper": {"kind": "joint_position", "unit": "rad", "target": "w"}}}, "one of shoulder, elbow"),
        ({"state_scale": [1, 2, 3]}, "3 numbers in state_scale"),
        ({"cameras": {"left": "x"}}, "names the cameras left"),
        ({"features": {"state": "joints"}}, "no feature joints; there is observation.state"),
        ({"features": {"state": "observation.images.top"}}, "expected one row of"),
    ],
)
def test_a_mapping_of_something_else_is_refused(lerobot, said, why):
    with pytest.raises(DatasetError, match=why):
        open_source(lerobot.add().write(), SourceMapping.model_validate(said))


@pytest.mark.parametrize(
    ("names", "why"),
    [
        (["x", "y"], "x is the pose of a hand"),
        (["a_vel", "b_vel"], "no position of a, b"),
        (["a.pos", "a_pos"], "meta/info.json: "),
    ],
)
def test_a_state_that_is_not_of_joints_is_refused(lerobot, names, why):
    lerobot.state_names = names
    with pytest.raises(DatasetError, match=why):
        open_source(lerobot.add().write())


def test_a_gripper_that_is_no_fraction_is_refused(lerobot):
    lerobot.add().actions[0][:, 2] *= 100
    with pytest.raises(
        DatasetError, match=r"gripper is a gripper that is no joint, with values from 0 to 100, expected 0 to 1"
    ):
        open_source(lerobot.write())


def test_an_action_that_cannot_be_told_names_its_numbers(lerobot):
    lerobot.action_names = ["shoulder_vel", "roll", "wrist"]
    with pytest.raises(DatasetError, match="roll is called like no joint of the state; wrist is called"):
        open_source(lerobot.add().write())


@pytest.mark.parametrize(
    ("field", "template", "why"),
    [
        ("data_path", "../{episode_index}.parquet", "not a path inside"),
        ("data_path", "/etc/{episode_index}", "not a path inside"),
        ("video_path", "videos/{video_key}/../../../x.mp4", "not a path inside"),
        ("data_path", "{episode_index.__class__}", "expected a path with"),
        ("data_path", "{episode_index:99999999d}", "expected a path with"),
        ("data_path", "{password}", "is none of episode_chunk"),
        ("video_path", "{video_key:03d}.mp4", "is none of"),
        ("data_path", 7, "data_path is 7"),
    ],
)
def test_a_template_leads_nowhere_else(lerobot, field, template, why):
    with pytest.raises(DatasetError, match=why):
        open_source(changed(lerobot.add(), **{field: template}))


def test_a_feature_name_leads_nowhere_else(lerobot):
    key = "../../../../elsewhere"
    lerobot.extra_features[key] = {"dtype": "video", "shape": [16, 24, 3], "names": None}
    with pytest.raises(DatasetError, match="not a path inside"):
        open_source(lerobot.add().write())


def test_a_link_out_of_the_dataset_is_refused(lerobot, tmp_path):
    lerobot.add().write()
    (tmp_path / "elsewhere.parquet").write_bytes(lerobot.table_path(0).read_bytes())
    lerobot.table_path(0).unlink()
    lerobot.table_path(0).symlink_to(tmp_path / "elsewhere.parquet")
    with pytest.raises(DatasetError, match="A link to another directory counts as outside"):
        open_source(lerobot.root)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"codebase_version": "v3.0"}, "is 'v3.0', expected v2.0 or v2.1; other versions"),
        ({"codebase_version": None}, "codebase_version is None"),
        ({"fps": 0}, "fps is 0"),
        ({"fps": "fast"}, "fps is 'fast'"),
        ({"chunks_size": 0}, "chunks_size is 0"),
        ({"features": []}, "features is"),
        ({"features": {"observation.state": {"dtype": "float32", "shape": [10**15]}}}, "shape"),
        ({"features": {"observation.state": {"dtype": "float32", "shape": [10**9]}}}, "expected one row of 1 to 256"),
        ({"video_path": None}, "video_path is missing"),
    ],
)
def test_an_impossible_description_is_refused(lerobot, changes, why):
    with pytest.raises(DatasetError, match=why):
        open_source(changed(lerobot.add(), **changes))


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ("", "lists no episode"),
        ("{", "line 1|JSON lines"),
        ('{"episode_index": -1, "length": 3}', "line 1: episode_index is -1"),
        ('{"episode_index": 99999999999, "length": 3}', "episode_index is 99999999999"),
        ('{"episode_index": 0, "length": 3}\n{"episode_index": 0, "length": 3}', "listed twice"),
        ("\udcff", "cannot be read as JSON lines"),
    ],
)
def test_a_bad_list_of_episodes_is_refused(lerobot, lines, why):
    root = lerobot.add().write()
    (root / "meta/episodes.jsonl").write_bytes(lines.encode(errors="surrogateescape"))
    with pytest.raises(DatasetError, match=why):
        open_source(root)


def _spoil(lerobot, how):
    path = lerobot.table_path(1)
    if how == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    elif how == "text":
        path.write_text("hello")
    else:
        table = pq.read_table(path)
        column, kind = how.split(":")
        values = {
            "strings": pa.array(["x"] * 12),
            "wide": pa.array([[1.0] * 9] * 12),
            "ragged": pa.array([[1.0] * 2, [1.0] * 3] * 6),
            "holes": pa.array([[1.0, None]] * 12),
            "empty": pa.array([None] * 12, pa.list_(pa.float32())),
            "nan": pa.array([float("nan")] * 12),
            "nans": pa.array([[1.0, float("inf")]] * 12),
            "standing": pa.array([0.5] * 12),
            "back": pa.array(np.arange(12)[::-1] / 10),
        }
        where = table.schema.get_field_index(column)
        kept = table.remove_column(where)
        pq.write_table(kept if kind == "gone" else table.set_column(where, column, values[kind]), path)


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("truncated", "cannot be read as parquet"),
        ("text", "cannot be read as parquet"),
        ("observation.state:gone", "no column observation.state; there is action, timestamp"),
        ("observation.state:strings", "is of type string"),
        ("observation.state:wide", "claims 108 values|rows of 9 numbers, expected 2"),
        ("observation.state:ragged", "rows of 3 numbers, expected 2"),
        ("observation.state:holes", "empty values"),
        ("observation.state:empty", "empty rows"),
        ("observation.state:nans", "number 1 of step 0 is inf"),
        ("timestamp:nan", "the time of step 0 is nan"),
        ("timestamp:standing", "step 1 is at 0.500000 s and the one before at 0.5"),
        ("timestamp:back", "expected times that increase"),
    ],
)
def test_a_damaged_episode_costs_only_itself(lerobot, how, why):
    lerobot.add(0).add(1).write()
    _spoil(lerobot, how)
    source = open_source(lerobot.root)
    assert source.present == (0, 1)
    assert source.read(0).rows["action"].shape == (12, 3)
    with pytest.raises(DatasetError, match=why) as caught:
        source.read(1)
    assert "episode_000001.parquet" in str(caught.value)


def test_another_length_than_listed_is_refused(lerobot):
    lerobot.add().write()
    lerobot.write_lines("meta/episodes.jsonl", [{"episode_index": 0, "tasks": [], "length": 11}])
    with pytest.raises(DatasetError, match=r"12 steps, meta/episodes\.jsonl says 11"):
        open_source(lerobot.root).read(0)


def test_a_video_of_another_length_or_size(lerobot, make_video):
    lerobot.add().write()
    lerobot.video_path(0).write_bytes(b"no video")
    with pytest.raises(DatasetError, match="no mp4 video"):
        open_source(lerobot.root).read(0)
    make_video(lerobot.video_path(0), 11)
    with pytest.raises(DatasetError, match="11 frames, expected 12"):
        open_source(lerobot.root).read(0)
    make_video(lerobot.video_path(0), 13, (32, 48))
    header = open_source(lerobot.root).read(0).header
    assert header.cameras[0][1:] == (32, 48)
    assert "The video of top has 13 frames for 12 steps; the first 12 were taken." in header.origin.notes
    assert "top is 32x48, the dataset states 16x24." in header.origin.notes


def test_a_depth_camera_is_left_out(lerobot):
    depth = {"dtype": "video", "shape": [16, 24, 3], "names": None, "info": {"video.is_depth_map": True}}
    lerobot.extra_features["observation.images.depth"] = depth
    source = open_source(lerobot.add().write())
    assert source.read(0).header.camera_names == ("top",)
    assert "observation.images.depth is a depth camera and was left out." in source.notes


def test_without_any_episode_it_opens_and_says_so(lerobot):
    lerobot.add().write()
    lerobot.table_path(0).unlink()
    source = open_source(lerobot.root)
    assert (source.present, set(source.missing)) == ((), {0})


def test_without_pyarrow_it_says_what_to_install(lerobot, monkeypatch):
    root, real = lerobot.add().write(), builtins.__import__

    def without(name, *rest):
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(DatasetError, match="pip install pyarrow"):
        open_source(root)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(["fps", "features", "data_path", "video_path", "robot_type", "chunks_size"]), value=st.data()
)
def test_whatever_info_says_ends_in_an_error_that_is_ours(lerobot, name, value):
    if not lerobot.root.exists():
        lerobot.info_before = json.loads((lerobot.add(0, steps=5).write() / "meta/info.json").read_text())
    anything = st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=6,
    )
    lerobot.write_json("meta/info.json", lerobot.info_before | {name: value.draw(anything)})
    try:
        source = open_source(lerobot.root)
    except DatasetError:
        return
    for number in source.present:
        source.read(number)
