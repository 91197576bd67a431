"""Demonstrations by the scripted leader."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from btruntime.record.config import RecorderConfig
from btruntime.record.simulated import record_demonstrations
from foundation.errors import BtruntimeError
from hal.sim.pick import PickTask
from hal.sim.specs import reference_spec
from skills.episodes import Episode, list_episodes, recover

SPEC = reference_spec(width=12, height=10, main_hz=10.0, wrist_hz=10.0)
CONFIG = RecorderConfig(data_frequency=10.0)


def demonstrate(data_dir, seeds, task=None, config=CONFIG, **options):
    return record_demonstrations(task or PickTask(), SPEC, data_dir, seeds, config, software="test 1", **options)


def test_each_scene_gives_an_episode_and_the_same_again(tmp_path):
    told = []
    saved = demonstrate(tmp_path / "a", [0, 1], progress=lambda seed, recorded: told.append((seed, recorded)))
    assert [each.path.name for each in saved] == ["episode_0.h5", "episode_1.h5"]
    assert told == list(zip([0, 1], saved, strict=True))
    assert not [each.problem for each in list_episodes(tmp_path / "a") if each.problem]
    again = demonstrate(tmp_path / "b", [1])
    with Episode(saved[0].path) as other, Episode(saved[1].path) as one, Episode(again[0].path) as same:
        assert 30 < len(one) <= 60
        for name in ("action", "applied_action", "qpos", "qvel", "odom", "timestamps/step", "images/arm_camera"):
            assert (one.column(name) == same.column(name)).all(), name
        assert (one.qpos[0] != other.qpos[0]).any()
        assert one.qpos[-1, 5] > 0.2  # fingers around the cube
        assert np.abs(one.applied_action - one.action).max() < 0.05


def test_a_leader_that_fails_leaves_nothing_but_trash(tmp_path):
    told = []
    hopeless = replace(PickTask(), lifted_m=0.5)
    assert demonstrate(tmp_path, [0], hopeless, progress=lambda seed, recorded: told.append((seed, recorded))) == []
    assert told == [(0, None)]
    assert not list_episodes(tmp_path)
    assert len(list((tmp_path / ".trash").glob("*.h5"))) == 1


def test_cancelling_trashes_the_episode_at_hand_and_ends(tmp_path):
    asked = iter([False] * 5 + [True] * 100)
    assert demonstrate(tmp_path, range(10), cancelled=lambda: next(asked)) == []
    assert len(list((tmp_path / ".trash").glob("*.h5"))) == 1
    assert demonstrate(tmp_path / "none", [0], cancelled=lambda: True) == []
    assert not (tmp_path / "none").exists()


def test_trouble_reaches_the_caller_and_the_steps_stay(tmp_path):
    class TroubleError(BtruntimeError):
        pass

    calls = iter(range(1000))

    def cancelled() -> bool:
        if next(calls) > 20:
            raise TroubleError
        return False

    with pytest.raises(TroubleError):
        demonstrate(tmp_path, [0], cancelled=cancelled)
    assert len(list(tmp_path.glob(".recording-*.h5"))) == 1
    assert recover(tmp_path)[0].steps > 15  # the writer let go of its lock
