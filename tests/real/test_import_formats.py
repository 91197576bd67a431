"""Two real datasets of other programs, as an import sees them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from btruntime.dataset.formats import open_source
from btruntime.dataset.source import DatasetError
from hal.types import ActionKind
from skills.episodes import Episode, save_episode

DATA = Path(__file__).parents[3] / "shared" / "data"
CR5, MARS = DATA / "cr5_dobot", DATA / "mars_h264"

needs_cr5 = pytest.mark.skipif(not CR5.is_dir(), reason="the real LeRobot dataset is not here")
needs_mars = pytest.mark.skipif(not MARS.is_dir(), reason="the real recordings of the reference robot are not here")


@needs_cr5
def test_lerobot():
    source = open_source(CR5)
    assert (source.format, source.task) == ("LeRobot v2.1", "put the banana on the plate")
    assert (len(source.present), len(source.missing), source.present[0]) == (21, 60, 8)
    assert set(source.present) | set(source.missing) == set(range(81))
    assert source.missing[7] == "episode_000007.parquet, episode_000007.mp4 of observation.images.top is not there."
    assert not any("frame numbers" in note for note in source.notes)
    for number in source.present:
        found = source.read(number)
        header, rows = found.header, found.rows
        assert (header.robot, header.data_frequency_hz, header.camera_names) == ("cr5", 10.0, ("top",))
        assert header.joint_names == tuple(f"joint_{index}" for index in range(6))
        assert [dim.kind for dim in header.action.dims] == [ActionKind.JOINT_VELOCITY] * 6 + [ActionKind.GRIPPER]
        assert [dim.target for dim in header.action.dims] == [*header.joint_names, "gripper"]
        assert int((np.diff(rows["action"][:, 6]) != 0).sum()) == 2
        # The commanded velocities are those with which the joints then move.
        assert np.corrcoef(rows["qvel"][2:, 1], rows["action"][:-2, 1])[0, 1] > 0.5


@needs_cr5
def test_a_lerobot_episode_can_be_saved(tmp_path):
    found = open_source(CR5).read(20)
    path = save_episode(tmp_path / "data", found.header, found.rows, videos=found.videos, number=20)
    with Episode(path) as episode:
        assert len(episode) == len(found.rows["action"])
        assert episode.frame("top", -1).shape == (480, 640, 3)
        assert np.diff(episode.step_s).max() > 0.15  # Its clock jitters, and that is kept.


@needs_mars
def test_the_reference_robot(tmp_path):
    source = open_source(MARS)
    assert (source.name, source.present) == ("fold_cloth", (0, 1))
    assert source.missing == {number: f"episode_{number}.h5 is not there." for number in (2, 3, 4, 5)}
    assert "The dataset states 20 Hz, its times show 18.5 Hz, which was taken." in source.notes
    for number in source.present:
        header = source.read(number).header
        assert (header.data_frequency_hz, header.camera_names) == (18.5, ("main_camera", "arm_camera"))
        assert header.action.names[5:] == ("joint6", "base_linear", "base_angular", "progress", "termination")
    found = source.read(1)
    path = save_episode(tmp_path / "data", found.header, found.rows, videos=found.videos, number=1)
    with Episode(path) as episode:
        assert (len(episode), episode.number) == (274, 1)
        assert episode.frame("arm_camera", 273).shape == (224, 224, 3)
        assert episode.action[-1, 8:].tolist() == [1, 1]


@pytest.mark.parametrize(("folder", "why"), [("lerobot_v30", "'v3.0', expected v2.0 or v2.1"), ("aloha", "ALOHA")])
def test_what_is_not_read_yet_is_said(folder, why):
    if not (DATA / folder).is_dir():
        pytest.skip(f"the real dataset {folder} is not here")
    with pytest.raises(DatasetError, match=why):
        open_source(DATA / folder)
