from __future__ import annotations

import json
from datetime import UTC, datetime

import h5py
import numpy as np
import pytest

from btruntime.dataset.formats import SourceMapping, open_source
from btruntime.dataset.source import DatasetError
from hal.types import ActionKind
from skills.episodes import Episode, save_episode

EPOCH_S = 1_760_000_000.0


def test_a_recording_is_converted_and_can_be_saved(reference, tmp_path):
    reference.episode(0)
    source = open_source(reference.index(task_name="fold the cloth"))
    assert (source.format, source.name, source.task) == ("reference robot", "fold-cloth", "fold the cloth")
    assert (source.present, source.missing) == ((0,), {})
    found = source.read(0)
    header = found.header
    assert (header.joint_names, header.camera_names) == (("joint1", "joint2", "joint3"), ("main_camera", "arm_camera"))
    assert [(dim.name, dim.kind, dim.unit, dim.low) for dim in header.action.dims] == [
        ("joint1", ActionKind.JOINT_POSITION, "rad", None),
        ("joint2", ActionKind.JOINT_POSITION, "rad", None),
        ("joint3", ActionKind.GRIPPER, "rad", None),
        ("base_linear", ActionKind.BASE_VELOCITY, "m/s", None),
        ("base_angular", ActionKind.BASE_VELOCITY, "rad/s", None),
        ("progress", ActionKind.PROGRESS, "1", 0),
        ("termination", ActionKind.TERMINATION, "1", 0),
    ]
    assert (header.has_base, header.data_frequency_hz) == (False, 10.0)
    assert header.start_utc.timestamp() == pytest.approx(EPOCH_S + 0.05, abs=1e-3)
    assert found.rows["timestamps/step"][0] == 0
    np.testing.assert_allclose(
        found.rows["timestamps/images/main_camera"], found.rows["timestamps/arm"] - 0.01, atol=1e-6
    )
    frames = {camera: list(get()) for camera, get in found.frames.items()}
    assert tuple(frames["main_camera"][0][0, 0]) == (30, 20, 10)  # It was BGR.
    assert tuple(frames["arm_camera"][-1][0, 0]) == (31, 20, 10)
    path = save_episode(tmp_path / "data", header, found.rows, frames={c: get() for c, get in found.frames.items()})
    with Episode(path) as episode:
        assert (len(episode), episode.header.origin.dataset) == (30, "fold-cloth")


def test_the_documented_layout_is_rgb_and_may_have_a_base(reference):
    path = reference.episode(0, documented=True, times=False, width=3)
    with h5py.File(path, "r+") as file:
        file["cmd_vel"], file["odom"] = np.zeros((30, 2)), np.ones((30, 5))
    found = open_source(reference.index()).read(0)
    assert (found.header.has_base, found.header.action.names) == (True, ("joint1", "joint2", "joint3"))
    assert found.rows["odom"].shape == (30, 5)
    assert tuple(next(iter(found.frames["main_camera"]()))[0, 0]) == (10, 20, 30)
    np.testing.assert_allclose(found.rows["timestamps/step"], np.arange(30) / 10)
    assert found.header.start_utc == datetime(2026, 4, 16, 11, tzinfo=UTC)
    notes = " ".join(found.header.origin.notes)
    assert "It has no times" in notes
    assert "local time of an unknown zone" in notes


def test_odometry_of_another_kind_is_left_out(reference):
    path = reference.episode(0, documented=True)
    with h5py.File(path, "r+") as file:
        file["cmd_vel"], file["odom"] = np.zeros((30, 2)), np.ones((30, 3))
    found = open_source(reference.index()).read(0)
    assert not found.header.has_base
    assert "cmd_vel and odom were left out: expected are (T, 2) and (T, 5)." in found.header.origin.notes


def test_the_upload_form_has_videos(reference, make_video):
    for number in range(3):
        reference.episode(number, images=False)
    root = reference.index(dataset_type="h264")
    (reference.data / "episode_1_camera_2.mp4").unlink()
    (reference.data / "episode_2.h5").unlink()
    make_video(reference.data / "episode_0_camera_2.mp4", 27)
    source = open_source(root)
    assert source.missing == {
        1: "episode_1_camera_2.mp4 is not there, and episode_1.h5 has no frames of that camera.",
        2: "episode_2.h5 is not there.",
    }
    found = source.read(0)
    assert {camera: path.name for camera, path in found.videos.items()} == {
        "main_camera": "episode_0_camera_1.mp4",
        "arm_camera": "episode_0_camera_2.mp4",
    }
    assert (found.header.cameras[0].height, found.header.cameras[0].width) == (16, 24)
    assert {len(values) for values in found.rows.values()} == {27}
    assert "The last 3 steps have no frame and were left out." in found.header.origin.notes


@pytest.mark.parametrize("index", [None, "", "[]", '{"episodes": 3}'])
def test_a_lost_index_is_made_up_for(reference, index):
    reference.episode(3)
    if index is not None:
        (reference.data / "dataset_metadata.json").write_text(index)
    source = open_source(reference.root)
    assert source.present == (3,)
    assert source.read(3).header.data_frequency_hz == 10.0
    notes = " ".join(source.notes)
    assert "states no frequency; its times show 10.0 Hz" in notes
    assert ("was not used" in notes) is (index is not None)


def test_an_episode_beside_the_index_is_found(reference):
    reference.episode(0)
    root = reference.index()
    reference.episode(1)
    source = open_source(root)
    assert source.present == (0, 1)
    assert "episode_1.h5 is not in the index of the dataset." in source.notes


@pytest.mark.parametrize("name", ["fold it", None, "", 7])
def test_the_name_is_in_the_metadata(reference, name):
    reference.episode(0)
    (reference.root / "metadata.json").write_text(json.dumps({"name": name}))
    root = reference.index()
    expected = "fold it" if name == "fold it" else "fold-cloth"
    assert open_source(root).name == open_source(root / "data").name == expected


def test_the_true_frequency_is_that_of_all_episodes(reference):
    reference.episode(0, rate_hz=8.0)
    reference.episode(1, rate_hz=8.4)
    source = open_source(reference.index())
    assert {source.read(number).header.data_frequency_hz for number in (0, 1)} == {8.2}
    assert "The dataset states 10 Hz, its times show 8.2 Hz, which was taken." in source.notes


@pytest.mark.parametrize(
    ("factor", "scale", "note"),
    [
        (15.63, 15.63, "times too small and was multiplied by 15.63"),
        (1.0, 1.0, "agrees with the change of qpos"),
        (4.0, 1.0, "does not agree with the change of qpos"),
    ],
)
def test_velocities_in_a_wrong_unit_are_mended(reference, factor, scale, note):
    reference.episode(0, qvel_factor=factor)
    path = reference.episode(1, qvel_factor=factor)
    with h5py.File(path, "r+") as file:
        stored = file["observations/qvel"][:]
        file["observations/qvel"][::7] *= -3  # Glitches.
    source = open_source(reference.index())
    assert note in " ".join(source.notes)
    np.testing.assert_allclose(source.read(0).rows["qvel"], stored * scale)


def test_velocities_that_are_not_there_or_not_moving(reference):
    reference.episode(0, qvel_factor=None)
    path = reference.episode(1)
    with h5py.File(path, "r+") as file:
        file["observations/qpos"][:] = 0.5
    source = open_source(reference.index())
    assert "qvel was kept: too little moves to tell its unit." in source.notes
    found = source.read(0)
    assert "qvel is computed from qpos: the episode has none." in found.header.origin.notes
    step_s = found.rows["timestamps/step"]
    np.testing.assert_allclose(found.rows["qvel"][1:-1, 0], np.cos(step_s)[1:-1], atol=0.01)


@pytest.mark.parametrize(("width", "names"), [(3, 3), (5, 5), (7, 7)])
def test_the_widths_that_mean_something(reference, width, names):
    reference.episode(0, width=width)
    assert len(open_source(reference.index()).read(0).header.action.names) == names


@pytest.mark.parametrize(
    ("width", "why"), [(11, "before the leader was connected"), (4, "recorded by another program")]
)
def test_the_widths_that_mean_nothing(reference, width, why):
    reference.episode(0, width=width)
    source = open_source(reference.index())
    with pytest.raises(DatasetError, match=rf"action is {width} wide with 3 joints .* 3 \(joints\), 5 .*{why}"):
        source.read(0)


def test_repeated_times_are_spread_and_repeated_frames_marked(reference):
    path = reference.episode(0)
    with h5py.File(path, "r+") as file:
        times_s = EPOCH_S + np.arange(30) // 2 * 0.2
        for name in ("arm", "images/camera_1", "images/camera_2"):
            file[f"timestamps/{name}"][:] = times_s
    found = open_source(reference.index()).read(0)
    np.testing.assert_allclose(found.rows["timestamps/step"], np.arange(30) * 0.1, atol=1e-6)
    np.testing.assert_allclose(found.rows["timestamps/arm"], np.arange(30) // 2 * 0.2, atol=1e-6)
    assert found.rows["stale/main_camera"].tolist() == [False, True] * 15
    assert "15 times of arm were repeated and were spread." in found.header.origin.notes


def test_the_clock_of_a_simulator_is_no_date(reference):
    reference.episode(0, start_s=12.0)
    found = open_source(reference.index(episodes=[])).read(0)
    assert found.header.start_utc == datetime(1970, 1, 1, tzinfo=UTC)
    assert "When it was recorded is not stated: it starts at 1970-01-01." in found.header.origin.notes


def test_a_mapping_gives_names_only(reference):
    reference.episode(0)
    root = reference.index()
    mapping = SourceMapping(robot="arm-7", joints=("a", "b", "jaw"), cameras={"camera_1": "head"})
    header = open_source(root, mapping).read(0).header
    assert (header.robot, header.joint_names, header.camera_names) == (
        "arm-7",
        ("a", "b", "jaw"),
        ("head", "arm_camera"),
    )
    assert header.action.names[:3] == ("a", "b", "jaw")
    with pytest.raises(DatasetError, match="qpos has 3 joints, the mapping names 1"):
        open_source(root, SourceMapping(joints=("a",))).read(0)
    with pytest.raises(DatasetError, match="would be called arm_camera, arm_camera"):
        open_source(root, SourceMapping(cameras={"camera_1": "arm_camera"})).read(0)
    with pytest.raises(DatasetError, match="that is fixed in the reference robot's format"):
        open_source(root, SourceMapping(state_scale=0.5))


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        ({"file_name": "../../episode_0.h5"}, "not a path inside"),
        ({"file_name": "/etc/passwd"}, r"expected episode_N\.h5"),
        ({"file_name": "episode_0.h5", "video_files": ["episode_0_/../../../x.mp4"]}, "not a path inside"),
        ({"file_name": "episode_0.h5", "video_files": ["x.mp4"]}, "expected episode_0_<camera>"),
    ],
)
def test_the_index_leads_nowhere_else(reference, entry, why):
    reference.episode(0)
    with pytest.raises(DatasetError, match=why):
        open_source(reference.index(episodes=[entry]))


def _spoil(path, how):
    if how == "truncated":
        path.write_bytes(path.read_bytes()[:-2000])
        return
    if how == "text":
        path.write_text("hello")
        return
    name, _, kind = how.partition(":")
    with h5py.File(path, "r+") as file:
        if kind == "nan":
            file[name][3] = np.nan
            return
        if kind == "back":
            file[name][3] = 0
            return
        old = file[name][:]
        del file[name]
        if kind == "soft":
            file[name] = h5py.SoftLink("/action")
        elif kind == "external":
            file[name] = h5py.ExternalLink("elsewhere.h5", "/action")
        elif kind == "virtual":
            layout = h5py.VirtualLayout(shape=old.shape, dtype=old.dtype)
            layout[:] = h5py.VirtualSource("elsewhere.h5", "action", shape=old.shape)
            file.create_virtual_dataset(name, layout)
        elif kind == "huge":
            file.create_dataset(name, shape=(900_000, *old.shape[1:]), dtype=old.dtype, chunks=(1, *old.shape[1:]))
        elif kind == "short":
            file[name] = old[:-1]
        elif kind == "flat":
            file[name] = old.ravel()
        elif kind == "text":
            file[name] = "x"
        elif kind == "wide":
            file[name] = np.repeat(old, 200, axis=1)
        elif kind == "grey":
            file[name] = old[..., :1]
        elif kind == "group":
            file.create_group(name)


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("truncated", "cannot be read as HDF5"),
        ("text", "cannot be read as HDF5"),
        ("action:gone", "dataset action missing"),
        ("action:group", "dataset action missing"),
        ("observations/qpos:soft", "is a link to somewhere else"),
        ("observations/qpos:external", "is a link to somewhere else"),
        ("action:virtual", "takes its bytes from other files"),
        ("action:huge", "claims 900000 steps"),
        ("observations/images/camera_1:huge", "claims 900000 steps"),
        ("observations/images/camera_1:short", "has 29 frames, expected 30"),
        ("observations/images/camera_1:grey", r"expected \(T, height, width, 3\) uint8"),
        ("observations/qpos:short", "has 29 steps, expected 30 as action has"),
        ("observations/qpos:flat", r"expected numbers \(T, N\)"),
        ("observations/qpos:wide", "of at most 256"),
        ("observations/qvel:text", "expected numbers"),
        ("observations/qpos:nan", "observations/qpos of step 3 is not finite"),
        ("timestamps/arm:nan", "timestamps/arm of step 3 is not finite"),
    ],
)
def test_a_damaged_episode_costs_only_itself(reference, how, why):
    reference.episode(0)
    path = reference.episode(1)
    root = reference.index()
    _spoil(path, how)
    source = open_source(root)
    assert source.present == (0, 1)
    assert len(source.read(0).rows["action"]) == 30
    with pytest.raises(DatasetError, match=why) as caught:
        source.read(1)
    assert "episode_1.h5" in str(caught.value)


def test_times_that_go_back_are_refused(reference):
    path = reference.episode(0)
    for name in ("arm", "images/camera_1", "images/camera_2"):
        _spoil(path, f"timestamps/{name}:back")
    with pytest.raises(DatasetError, match=r"episode_0\.h5: step 3 is at 0\.0.*times that increase"):
        open_source(reference.index()).read(0)


def test_without_times_and_index_the_frequency_is_asked_for(reference):
    reference.episode(0, times=False)
    with pytest.raises(DatasetError, match=r"at what frequency .*/dataset_metadata\.json"):
        open_source(reference.root).read(0)
