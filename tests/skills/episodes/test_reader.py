from __future__ import annotations

import contextlib
import shutil
from datetime import UTC, datetime
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from skills.episodes import Episode, EpisodeError


def test_it_knows_what_it_is(record, header):
    path = record(20)
    with Episode(path) as episode:
        assert len(episode) == 20
        assert episode.header == header
        assert episode.number == 0
        assert episode.end_utc == datetime(2026, 3, 4, 5, 6, 9, tzinfo=UTC)
        assert episode.recovered is None
        assert episode.has_images
        assert episode.duration_s == pytest.approx(19 / 30)


def test_cameras_keep_the_order_of_the_header(record):
    with Episode(record(1)) as episode:
        assert episode.camera_names == ("main_camera", "arm_camera")


def test_frames_come_one_at_a_time(record, step):
    with Episode(record(6)) as episode:
        frames = episode.frames("arm_camera", 2, 5)
        assert [frame[0, 0, 0] for frame in frames] == [2, 3, 4]
        assert sum(1 for _ in episode.frames("arm_camera")) == 6
        assert (episode.frame("main_camera", -1) == step(5).images["main_camera"]).all()


@pytest.mark.parametrize("index", [6, -7])
def test_a_step_that_is_not_there(record, index):
    with Episode(record(6)) as episode, pytest.raises(EpisodeError, match=f"no step {index}; the episode has 6"):
        episode.frame("arm_camera", index)


def test_a_camera_that_is_not_there(record):
    with Episode(record(1)) as episode:
        for ask in (lambda: episode.frame("top", 0), lambda: episode.image_s("top"), lambda: episode.stale("top")):
            with pytest.raises(EpisodeError, match="no camera 'top'; there is main_camera, arm_camera"):
                ask()


def test_arrays_cannot_be_changed_and_outlive_the_file(record):
    with Episode(record(3)) as episode:
        qpos = episode.qpos
    assert qpos.shape == (3, 2)
    with pytest.raises(ValueError, match="read-only"):
        qpos[0] = 1
    with pytest.raises(EpisodeError, match="closed"):
        _ = episode.action


def test_the_video_form_has_no_images(record):
    path = record(3)
    with h5py.File(path, "r+") as file:
        del file["images"]
    with Episode(path) as episode:
        assert (episode.has_images, episode.camera_names, len(episode)) == (False, (), 3)


def _damage(path: Path, how: str) -> None:
    with h5py.File(path, "r+") as file:
        name, _, change = how.partition(":")
        if change == "gone":
            del file[name]
        elif change == "shorter":
            file[name].resize(2, axis=0)
        elif change == "empty":
            file.visititems(
                lambda _, item: item.resize(0, axis=0) if getattr(item, "maxshape", (1,))[0] is None else None
            )
            file["committed"][0] = 0
        elif change == "no attribute":
            del file.attrs[name]
        else:
            data = file[name][:]
            del file[name]
            file[name] = data.astype(change) if change != "flat" else data.reshape(-1)


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("qpos:gone", "dataset qpos missing"),
        ("committed:gone", "dataset committed missing"),
        ("timestamps/images/arm_camera:gone", "dataset timestamps/images/arm_camera missing"),
        ("stale:gone", "dataset stale/"),
        ("qpos:shorter", "qpos has 2 steps, action has 5"),
        ("images/main_camera:shorter", "images/main_camera has 2 steps, action has 5"),
        ("action:shorter", "has 5 steps, action has 2"),
        ("qvel:float32", r"qvel is \(5, 2\) float32, expected \(T, 2\) float64"),
        ("images/arm_camera:uint16", r"images/arm_camera is .* uint16, expected .* uint8"),
        ("images/arm_camera:flat", r"images/arm_camera is \(240,\)"),
        ("qpos:flat", r"qpos is \(10,\)"),
        (":empty", "no steps"),
        ("schema:no attribute", "schema missing"),
        ("joint_names:no attribute", "attribute joint_names missing"),
        ("action:no attribute", "attribute action missing"),
        ("start_utc:no attribute", "attribute start_utc missing"),
    ],
)
def test_damage_is_named(record, how, says):
    path = record(5)
    _damage(path, how)
    with pytest.raises(EpisodeError, match=says) as error:
        Episode(path)
    assert "episode_0.h5" in str(error.value)


@pytest.mark.parametrize(
    ("attribute", "value", "says"),
    [
        ("schema", 2, "schema 2, this btruntime reads 1"),
        ("colour", "bgr", "'bgr', expected 'rgb'"),
        ("action", "{", "action"),
        ("start_utc", "yesterday", "start_utc"),
        ("data_frequency", -1.0, "data_frequency"),
        ("joint_names", ["a", "b", "c"], "qpos is"),
    ],
)
def test_a_wrong_attribute_is_named(record, attribute, value, says):
    path = record(2)
    with h5py.File(path, "r+") as file:
        file.attrs[attribute] = value
    with pytest.raises(EpisodeError, match=says):
        Episode(path)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", r"empty, expected an HDF5 file\. Remove it, or copy it again\."),
        (b"plain text", r"not an HDF5 file\. Move it out of data/\."),
        (b"\x89HDF\r\n\x1a\n", r"cannot be opened|cut short|not an HDF5"),
    ],
)
def test_a_file_that_is_no_episode(tmp_path, content, says):
    path = tmp_path / "episode_0.h5"
    path.write_bytes(content)
    with pytest.raises(EpisodeError, match=says):
        Episode(path)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(EpisodeError, match="no such file"):
        Episode(tmp_path / "episode_0.h5")
    with pytest.raises(EpisodeError, match=r"is a directory, expected an HDF5 file\. Move it out of data/\."):
        Episode(tmp_path)


def test_a_recording_of_another_program_is_named(tmp_path):
    with h5py.File(tmp_path / "episode_0.h5", "w") as file:
        file["observations/qpos"] = np.zeros((3, 6))
        file["action"] = np.zeros((3, 10))
    with pytest.raises(EpisodeError, match=r"recording of another program .*btruntime dataset import"):
        Episode(tmp_path / "episode_0.h5")


def test_a_recording_that_goes_on_is_not_taken_for_an_episode(new_writer, step):
    writer = new_writer()
    writer.append(step(0))
    writer.flush()
    copy = writer.path.with_name("copy.h5")
    shutil.copy(writer.path, copy)
    writer.close()
    with pytest.raises(EpisodeError, match="still being written"):
        Episode(copy)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_file_is_read_or_refused_and_never_crashes(record, tmp_path, data):
    path = tmp_path / "data" / "episode_0.h5"
    if not path.exists():
        record(3)
    content = bytearray(path.read_bytes())
    cut = data.draw(st.integers(0, len(content)))
    for _ in range(data.draw(st.integers(0, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    damaged = tmp_path / "episode_1.h5"
    damaged.write_bytes(content[:cut] if data.draw(st.booleans()) else content)
    with contextlib.suppress(EpisodeError), Episode(damaged) as episode:
        _ = episode.action, episode.qpos, episode.end_utc, episode.recovered, list(episode.frames("arm_camera"))


def _made_hostile(path: Path, how: str) -> None:
    """Replace part of an episode by something that leads out of the file, or is larger than the file can hold."""
    elsewhere = path.with_name("elsewhere.h5")
    shutil.copy(path, elsewhere)
    with h5py.File(path, "r+") as file:
        dataset, _, trick = how.partition(":")
        shape, dtype = file[dataset].shape, getattr(file[dataset], "dtype", None)
        del file[dataset]
        if trick == "external":
            bytes_of = int(np.prod(shape)) * dtype.itemsize
            file.create_dataset(dataset, shape, dtype, external=[(str(elsewhere), 0, bytes_of)])
        elif trick == "virtual":
            layout = h5py.VirtualLayout(shape, dtype)
            layout[:] = h5py.VirtualSource(str(elsewhere), dataset, shape)
            file.create_virtual_dataset(dataset, layout)
        elif trick == "outside":
            file[dataset] = h5py.ExternalLink(str(elsewhere), dataset)
        elif trick == "soft":
            file[dataset] = h5py.SoftLink("/qvel")
        elif trick == "chunk":
            file.create_dataset(dataset, shape, dtype, maxshape=(None,), chunks=(1 << 28,), compression="gzip")
        else:
            file.create_dataset(dataset, (int(trick), *shape[1:]), dtype, chunks=(1, *shape[1:]))


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("qpos:external", "qpos takes its bytes from other files"),
        ("images/arm_camera:external", "images/arm_camera takes its bytes from other files"),
        ("action:virtual", "action takes its bytes from other files"),
        ("committed:virtual", "committed takes its bytes from other files"),
        ("qpos:outside", "qpos is a link to somewhere else"),
        ("qpos:soft", "qpos is a link to somewhere else"),
        ("images/main_camera:outside", "images/main_camera is a link to somewhere else"),
        ("cmd_vel:outside", "cmd_vel is a link to somewhere else"),
        ("committed:chunk", "committed has chunks"),
        ("qpos:1000000000000", "qpos"),
        ("images/main_camera:900000", "images/main_camera"),
    ],
)
def test_what_leads_out_of_the_file_is_refused(record, how, says):
    path = record(5)
    _made_hostile(path, how)
    with pytest.raises(EpisodeError, match=says) as error:
        Episode(path)
    assert "episode_0.h5" in str(error.value)


@pytest.mark.parametrize("group", ["images", "timestamps", "stale"])
def test_a_group_that_is_a_link_is_refused(record, group):
    path = record(5)
    shutil.copy(path, path.with_name("elsewhere.h5"))
    with h5py.File(path, "r+") as file:
        del file[group]
        file[group] = h5py.ExternalLink("elsewhere.h5", group)
    with pytest.raises(EpisodeError, match=f"{group}.* is a link to somewhere else"):
        Episode(path)


@pytest.mark.parametrize("steps", [300_000, 2_000_000])
def test_more_steps_than_the_file_can_hold_are_refused(record, steps):
    path = record(5)
    with h5py.File(path, "r+") as file:
        file.visititems(lambda _, item: item.resize(steps, axis=0) if getattr(item, "maxshape", (1,))[0] is None else 0)
        file["committed"][0] = steps
    with pytest.raises(EpisodeError, match=f"claims {steps} steps"):
        Episode(path)
