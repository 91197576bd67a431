from __future__ import annotations

import dataclasses
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hal.types import ActionDim, ActionKind, ActionSpec
from skills.episodes import (
    CameraShape,
    DiskFullError,
    Episode,
    EpisodeHeader,
    EpisodeWriteError,
    StepError,
    fill_progress,
    list_episodes,
    recover,
)


def test_an_episode_has_the_documented_datasets(record, header):
    with h5py.File(record(20)) as file:
        shapes = {}
        file.visititems(
            lambda name, item: shapes.update({name: (item.shape, str(item.dtype))}) if hasattr(item, "shape") else None
        )
        chunks = file["images/main_camera"].chunks, file["images/main_camera"].compression
        attributes = dict(file.attrs)
    assert shapes == {
        "action": ((20, 6), "float64"),
        "applied_action": ((20, 6), "float64"),
        "qpos": ((20, 2), "float64"),
        "qvel": ((20, 2), "float64"),
        "images/main_camera": ((20, 6, 8, 3), "uint8"),
        "images/arm_camera": ((20, 4, 4, 3), "uint8"),
        "timestamps/step": ((20,), "float64"),
        "timestamps/arm": ((20,), "float64"),
        "timestamps/images/main_camera": ((20,), "float64"),
        "timestamps/images/arm_camera": ((20,), "float64"),
        "stale/main_camera": ((20,), "bool"),
        "stale/arm_camera": ((20,), "bool"),
        "cmd_vel": ((20, 2), "float64"),
        "odom": ((20, 5), "float64"),
        "committed": ((1,), "int64"),
    }
    assert chunks == ((1, 6, 8, 3), None)
    assert attributes["schema"] == 1
    assert attributes["colour"] == "rgb"
    assert attributes["data_frequency"] == 30.0
    assert list(attributes["joint_names"]) == ["shoulder", "jaw"]
    assert attributes["start_utc"] == "2026-03-04T05:06:07.890Z"
    assert attributes["end_utc"] == "2026-03-04T05:06:09.000Z"
    assert (attributes["robot"], attributes["source"], attributes["software"]) == ("two-joints", "teleop", "test 1")
    assert ActionSpec.model_validate_json(attributes["action"]) == header.action


def test_what_was_appended_is_read_back(record, step):
    with Episode(record(20)) as episode:
        for index in range(20):
            was = step(index)
            assert episode.action[index, :4] == pytest.approx(was.action[:4])
            assert episode.applied_action[index, :4] == pytest.approx(was.applied_action[:4])
            assert (episode.qpos[index] == was.qpos).all()
            assert (episode.qvel[index] == was.qvel).all()
            assert (episode.step_s[index], episode.arm_s[index]) == (was.step_s, was.arm_s)
            assert (episode.cmd_vel[index] == was.cmd_vel).all()
            assert (episode.odom[index] == was.odom).all()
            for camera in episode.camera_names:
                assert (episode.frame(camera, index) == was.images[camera]).all()
                assert episode.image_s(camera)[index] == was.image_s[camera]
                assert episode.stale(camera)[index] == was.stale[camera]


def test_without_a_base_there_is_no_base_data(header, new_writer, step):
    arm_only = header.model_copy(update={"has_base": False})
    writer = new_writer(header=arm_only)
    writer.append(step(0))
    with Episode(writer.finalize()) as episode:
        assert (episode.cmd_vel, episode.odom, episode.header.has_base) == (None, None, False)


@given(length=st.integers(1, 40))
def test_progress_rises_to_one_and_the_last_ten_rows_terminate(length):
    dims = (
        ActionDim(name="a", kind=ActionKind.JOINT_POSITION, unit="rad", target="a"),
        ActionDim(name="p", kind=ActionKind.PROGRESS, unit="1"),
        ActionDim(name="t", kind=ActionKind.TERMINATION, unit="1"),
    )
    given_action = np.zeros((length, 3))
    filled = fill_progress(given_action, ActionSpec(dims=dims))
    assert filled[:, 1] == pytest.approx([i / (length - 1) if length > 1 else 0 for i in range(length)])
    assert filled[:, 2].tolist() == [float(i >= length - 10) for i in range(length)]
    assert not filled[:, 0].any()
    assert not given_action.any()


def test_progress_is_in_the_file(record):
    with Episode(record(20)) as episode:
        assert episode.action[:, 4] == pytest.approx(np.arange(20) / 19)
        assert episode.action[:, 5].tolist() == [0.0] * 10 + [1.0] * 10


def test_an_action_without_progress_is_left_as_it_was(header, new_writer, step):
    plain = header.model_copy(update={"action": ActionSpec(dims=header.action.dims[:4])})
    writer = new_writer(header=plain)
    for index in range(3):
        was = step(index)
        writer.append(dataclasses.replace(was, action=was.action[:4], applied_action=was.applied_action[:4]))
    with Episode(writer.finalize()) as episode:
        assert episode.action == pytest.approx(np.array([step(i).action[:4] for i in range(3)]))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"action": np.array([0, 0, 0, 0, 0, np.nan])}, "action is .*nan.* expected finite"),
        ({"qpos": np.array([np.inf, 0])}, "qpos is .*inf"),
        ({"qvel": np.zeros(3)}, r"qvel is \(3,\) float64, expected \(2,\) float64"),
        ({"action": np.zeros(4)}, r"action is \(4,\)"),
        ({"applied_action": ["a"] * 6}, "applied_action is"),
        ({"cmd_vel": None}, "cmd_vel is"),
        ({"odom": np.zeros(4)}, "odom is"),
        ({"images": {}}, "images has cameras none, expected arm_camera, main_camera"),
        ({"stale": {"main_camera": False}}, "stale has cameras"),
        ({"arm_s": float("nan")}, "timestamps/arm"),
        ({"step_s": 0.0}, "time after the last"),
        ({"step_s": float("nan")}, "timestamps/step"),
    ],
)
def test_a_step_that_does_not_fit_is_refused_and_recording_goes_on(new_writer, step, change, says):
    writer = new_writer()
    writer.append(step(0))
    with pytest.raises(StepError, match=says):
        writer.append(dataclasses.replace(step(1), **change))
    assert len(writer) == 1
    writer.append(step(1))
    with Episode(writer.finalize()) as episode:
        assert len(episode) == 2
        assert episode.frame("arm_camera", 1)[0, 0, 0] == 1


@pytest.mark.parametrize("frame", [np.zeros((6, 8, 3)), np.zeros((6, 8), np.uint8), np.zeros((8, 6, 3), np.uint8)])
def test_a_frame_of_another_shape_or_type_is_refused(new_writer, step, frame):
    was = step(0)
    with pytest.raises(StepError, match=r"images/main_camera is .* expected \(6, 8, 3\) uint8"):
        new_writer().append(dataclasses.replace(was, images={**was.images, "main_camera": frame}))


def test_a_frame_that_is_a_view_is_written_right(new_writer, step):
    was, writer = step(0), new_writer()
    frame = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)
    writer.append(dataclasses.replace(was, images={**was.images, "main_camera": frame[:, ::-1, ::-1]}))
    frame_then = frame.copy()
    frame[:] = 0
    with Episode(writer.finalize()) as episode:
        assert (episode.frame("main_camera", 0) == frame_then[:, ::-1, ::-1]).all()


def test_it_flushes_every_15_steps(new_writer, step):
    writer = new_writer()
    for index in range(32):
        writer.append(step(index))
    with Episode(writer.path, recording=True) as seen:
        assert len(seen) == 30
        assert (seen.frame("main_camera", 29) == step(29).images["main_camera"]).all()
    writer.flush()
    with Episode(writer.path, recording=True) as seen:
        assert len(seen) == 32
    writer.close()


def test_it_flushes_after_400_milliseconds(new_writer, step):
    times = iter([0.0, 0.1, 0.3, 0.4, 0.4, 0.5])
    writer = new_writer(now=lambda: next(times))
    for index in range(3):
        writer.append(step(index))
    with Episode(writer.path, recording=True) as seen:
        assert len(seen) == 3
    writer.append(step(3))
    with Episode(writer.path, recording=True) as seen:
        assert len(seen) == 3


def test_no_file_is_ever_overwritten(record):
    first = record(2)
    data_dir = first.parent
    (data_dir / "episode_7.h5").write_bytes(b"somebody's")
    (data_dir / "episode_9_main_camera.mp4").write_bytes(b"video")
    assert record(2).name == "episode_10.h5"
    assert (data_dir / "episode_7.h5").read_bytes() == b"somebody's"
    assert not list(data_dir.glob(".recording-*"))


def test_thenext_number_is_tried_when_another_writer_was_faster(record, monkeypatch):
    first = record(2)
    monkeypatch.setattr("skills.episodes.naming.next_number", lambda _: 0)
    assert record(3).name == "episode_1.h5"
    with Episode(first) as episode:
        assert len(episode) == 2


def test_without_hard_links_it_still_does_not_overwrite(record, monkeypatch):
    record(2)
    monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(PermissionError(1, "Operation not permitted")))
    monkeypatch.setattr("skills.episodes.naming.next_number", lambda _: 0)
    second = record(3)
    assert second.name == "episode_1.h5"
    with Episode(second) as episode:
        assert len(episode) == 3


def test_outcome_and_note_go_beside_it(record):
    path = record(2, outcome="failure", note="dropped it")
    (summary,) = list_episodes(path.parent)
    assert (summary.outcome, summary.note) == ("failure", "dropped it")
    assert '"outcome": "failure"' in path.with_suffix(".json").read_text()


def test_discarding_deletes_nothing(new_writer, step):
    writer = new_writer()
    writer.append(step(0))
    trashed = writer.discard()
    assert trashed.parent == writer.path.parent / ".trash"
    with Episode(trashed, recording=True) as episode:
        assert len(episode) == 1
    assert [p.name for p in writer.path.parent.iterdir()] == [".trash"]


def test_an_empty_episode_is_not_saved(new_writer):
    writer = new_writer()
    with pytest.raises(EpisodeWriteError, match="nothing was recorded"):
        writer.finalize()
    writer.discard()


def test_a_closed_writer_says_so(new_writer, step):
    writer = new_writer()
    writer.append(step(0))
    writer.close()
    writer.close()
    for act in (lambda: writer.append(step(1)), writer.flush, writer.finalize, writer.discard):
        with pytest.raises(EpisodeWriteError, match="closed"):
            act()


def test_recording_stops_before_the_disk_is_full(new_writer, step, monkeypatch):
    writer = new_writer(min_free_bytes=1 << 20)
    for index in range(14):
        writer.append(step(index))
    little = SimpleNamespace(f_bavail=1, f_frsize=4096)
    monkeypatch.setattr("skills.episodes.writer.os.statvfs", lambda _: little)
    with pytest.raises(DiskFullError, match="MiB free"):
        writer.append(step(14))
    with Episode(writer.finalize()) as episode:
        assert len(episode) == 15


def test_nothing_is_begun_on_a_disk_that_is_nearly_full(new_writer, tmp_path):
    with pytest.raises(DiskFullError, match=r"MiB free, expected at least \d+ MiB\. Free some space\."):
        new_writer(min_free_bytes=1 << 62)
    assert not list((tmp_path / "data").iterdir())


_SMALL_DISK = """
set -e
mkdir "$1"
mount -t tmpfs -o size="$2"k none "$1"
disk="$1" after="$3"
shift 3
set +e
"$@"
status=$?
cp -a "$disk" "$after"
exit $status
"""
_UNTIL_IT_IS_FULL = """
import importlib.util, sys
from pathlib import Path
from types import SimpleNamespace
from foundation.errors import BtruntimeError
from skills.episodes import EpisodeHeader, EpisodeWriter
spec = importlib.util.spec_from_file_location("conftest", sys.argv[1])
sys.modules["conftest"] = conftest = importlib.util.module_from_spec(spec)
spec.loader.exec_module(conftest)
header = EpisodeHeader.model_validate_json(Path(sys.argv[2]).read_text())
try:
    writer = EpisodeWriter(Path(sys.argv[3]), header, min_free_bytes=0)
    try:
        for index in range(10_000):
            writer.append(conftest.step_of(header, index))
    finally:
        getattr(writer, sys.argv[4])()
except BtruntimeError as error:
    print(error)
"""


@pytest.fixture
def fill_a_disk(tmp_path, header):
    """A process records on a disk of so many KiB until it is full; what it says, and its `data/` afterwards."""
    if shutil.which("unshare") is None:
        pytest.skip("there is no unshare")
    probe = subprocess.run(["unshare", "-rm", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, text=True)
    if probe.returncode:
        pytest.skip(f"no namespaces: {probe.stderr.strip()}")

    def run(size_kib, end):
        # Of a size at which it is a frame that does not fit.
        cameras = (CameraShape("main_camera", 60, 80), CameraShape("arm_camera", 40, 40))
        (tmp_path / "header.json").write_text(header.model_copy(update={"cameras": cameras}).model_dump_json())
        disk, after = tmp_path / "disk", tmp_path / "after"
        shell = ["unshare", "-rm", "sh", "-c", _SMALL_DISK, "sh", str(disk), str(size_kib), str(after)]
        places = [Path(__file__).parent / "conftest.py", tmp_path / "header.json", disk / "data"]
        command = [*shell, sys.executable, "-c", _UNTIL_IT_IS_FULL, *map(str, places), end]
        ended = subprocess.run(command, cwd=Path(__file__).parents[3], capture_output=True, text=True)
        # HDF5 would show its own errors at the end of the process, and then crash.
        assert (ended.returncode, ended.stderr) == (0, "")
        (line,) = ended.stdout.splitlines()
        return line, after / "data"

    return run


@pytest.mark.parametrize("size_kib", [4, 8])
def test_a_disk_that_has_no_room_for_a_file(fill_a_disk, size_kib):
    said, data_dir = fill_a_disk(size_kib, "close")
    assert said.endswith("cannot be created: No space left on device. Free some space.")
    assert not list(data_dir.iterdir())


def test_a_disk_that_fills_up_before_anything_is_safe(fill_a_disk):
    said, data_dir = fill_a_disk(200, "close")
    assert "writing failed: No space left on device. 0 of " in said
    assert [path.suffix for path in data_dir.iterdir()] == [".h5"]


@pytest.mark.parametrize("end", ["close", "discard"])
def test_a_disk_that_fills_up_between_two_looks_ends_the_recording_and_not_the_process(fill_a_disk, end):
    said, data_dir = fill_a_disk(600, end)
    found = re.search(
        r"writing failed: No space left on device\. (\d+) of \d+ steps are safe.* Free some space\.", said
    )
    assert found is not None
    assert int(found[1]) >= 15
    if end == "discard":
        assert [path.name for path in data_dir.iterdir()] == [".trash"]
        return
    (recovered,) = recover(data_dir)
    with Episode(recovered.episode) as episode:
        assert len(episode) >= int(found[1])
        for index in range(len(episode)):
            assert episode.frame("main_camera", index)[0, 0, 0] == index


def test_a_directory_that_cannot_be_made_is_named(tmp_path, header):
    from skills.episodes import EpisodeWriter

    (tmp_path / "file").write_text("")
    with pytest.raises(EpisodeWriteError, match="file"):
        EpisodeWriter(tmp_path / "file" / "data", header)


@pytest.mark.parametrize(
    "change",
    [
        {"joint_names": ("a", "a")},
        {"joint_names": ()},
        {"cameras": (("../x", 2, 2),)},
        {"cameras": (("a", 0, 2),)},
        {"start_utc": "2026-01-01T00:00:00"},
        {"data_frequency_hz": float("nan")},
        {"source": "dream"},
    ],
)
def test_a_header_that_makes_no_sense_is_refused(header, change):
    with pytest.raises(ValueError, match="validation error"):
        EpisodeHeader.model_validate(header.model_dump() | change)


def test_importing_the_package_loads_no_hdf5():
    code = "import sys, skills.episodes, skills.store, skills.metadata; print('h5py' in sys.modules)"
    root = Path(__file__).parents[3]
    run = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


@pytest.fixture
def full_disk(monkeypatch):
    """Flushing fails; closing the file does not."""

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("skills.episodes.writer.os.fdatasync", refuse)


def test_closing_on_a_full_disk_lets_go_of_file_and_lock(new_writer, step, full_disk):
    writer = new_writer()
    writer.append(step(0))
    with pytest.raises(EpisodeWriteError, match="No space left"):
        writer.close()
    assert not list(writer.path.parent.glob("*.lock"))
    writer.close()
    with pytest.raises(EpisodeWriteError, match="closed"):
        writer.append(step(1))


def test_discarding_on_a_full_disk_moves_what_is_there(new_writer, step, full_disk):
    writer = new_writer()
    writer.append(step(0))
    trashed = writer.discard()
    assert trashed.is_file()
    assert [p.name for p in writer.path.parent.iterdir()] == [".trash"]


def test_the_seed_of_a_simulated_scene_is_kept(header, new_writer, step):
    writer = new_writer(header=header.model_copy(update={"scene_seed": (1 << 63) - 1}))
    writer.append(step(0))
    with Episode(writer.finalize()) as episode:
        assert episode.header.scene_seed == (1 << 63) - 1
