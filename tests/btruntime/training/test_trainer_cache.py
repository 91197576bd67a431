"""The prepared cache holds what the running policy would see, appears whole, and follows the data."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import pytest

from btruntime.training.trainer.cache import CACHE_DIR, Cache, DataError, DiskSpaceError, open_cache
from btruntime.training.trainer.events import Event, Note, Preparing, silent
from policies.preprocess import resize
from skills.episodes import Episode, set_labels

from .conftest import MakeSkill, record


def opened(skill: Path, **options: Any) -> Cache:
    return open_cache(skill, options.pop("report", silent), chunk_size=6, height=32, width=32, **options)


def test_frames_are_those_that_a_running_policy_sees(make_skill: MakeSkill) -> None:
    skill = make_skill(episodes=2)
    cache = opened(skill)
    with Episode(skill / "data/episode_1.h5") as episode:
        step = int(cache.starts[1]) + 5
        for camera in ("top", "wrist"):
            np.testing.assert_array_equal(cache.frames[camera][step], resize(episode.frame(camera, 5), 32, 32))
        np.testing.assert_array_equal(cache.state[step], episode.qpos[5].astype(np.float32))
        np.testing.assert_array_equal(cache.action[step], episode.action[5].astype(np.float32))
    assert cache.state.dtype == cache.action.dtype == np.float32


def test_a_red_card_stays_red(make_skill: MakeSkill) -> None:
    cache = opened(make_skill(episodes=1))
    brightest = cache.frames["top"][0].reshape(-1, 3).max(axis=0)
    assert brightest[0] > 200
    assert brightest[2] < 60


def test_the_spec_says_what_is_in_it(make_skill: MakeSkill) -> None:
    spec = opened(make_skill(episodes=1)).content.input_spec
    assert [(c.name, c.height, c.width) for c in spec.cameras] == [("top", 32, 32), ("wrist", 32, 32)]
    assert spec.joint_names == ("pan", "lift", "hand")
    assert spec.chunk_size == 6
    assert spec.data_frequency_hz == 10.0
    assert [dim["kind"] for dim in spec.action][-2:] == ["progress", "termination"]


def test_it_is_built_once(make_skill: MakeSkill) -> None:
    skill, events = make_skill(episodes=2), list[Event]()
    first = opened(skill, report=events.append)
    built = len([event for event in events if isinstance(event, Preparing)])
    again = opened(skill, report=events.append)
    assert built == 3
    assert len([event for event in events if isinstance(event, Preparing)]) == built
    assert again.content == first.content
    assert isinstance(again.frames["top"], np.memmap)


def test_other_data_or_another_size_is_another_cache(make_skill: MakeSkill) -> None:
    skill = make_skill(episodes=2)
    keys = {opened(skill).content.key}
    keys.add(open_cache(skill, silent, chunk_size=6, height=40, width=32).content.key)
    record(skill / "data", length=9, seed=9)
    keys.add(opened(skill).content.key)
    set_labels(skill / "data/episode_0.h5", trash=True)
    cache = opened(skill)
    keys.add(cache.content.key)
    assert len(keys) == 4
    assert cache.names == ("episode_1.h5", "episode_2.h5")


def test_what_a_killed_build_left_behind_is_removed(make_skill: MakeSkill) -> None:
    skill = make_skill(episodes=1)
    leftover = skill / CACHE_DIR / ".building-0123"
    leftover.mkdir(parents=True)
    (leftover / "top.npy").write_bytes(b"half")
    opened(skill)
    assert not leftover.exists()


def test_a_build_that_fails_leaves_nothing(make_skill: MakeSkill) -> None:
    skill = make_skill(episodes=2)

    def interrupted(event: Event) -> None:
        if isinstance(event, Preparing) and event.done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        opened(skill, report=interrupted)
    assert [path.name for path in (skill / CACHE_DIR).iterdir()] == [".lock"]
    assert len(opened(skill).names) == 2


def test_a_broken_episode_is_named_and_refused_or_skipped(make_skill: MakeSkill) -> None:
    skill, events = make_skill(episodes=3), list[Event]()
    broken = skill / "data/episode_1.h5"
    broken.write_bytes(broken.read_bytes()[:2000])
    with pytest.raises(DataError, match=r"1 of 3 episodes cannot be read.*episode_1\.h5"):
        opened(skill)
    cache = opened(skill, skip_broken=True, report=events.append)
    assert cache.names == ("episode_0.h5", "episode_2.h5")
    assert any(isinstance(event, Note) and "episode_1.h5" in event.text for event in events)


def test_episodes_of_another_kind_are_refused_by_name(make_skill: MakeSkill) -> None:
    skill = make_skill(episodes=1)
    record(skill / "data", length=5, seed=3, cameras=False)
    with pytest.raises(DataError, match=r"episode_1\.h5: cameras is \(\), expected \('top', 'wrist'\)"):
        opened(skill)


def test_no_episode_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with pytest.raises(DataError, match="holds no episode"):
        opened(tmp_path)


def test_failures_can_be_left_out(make_skill: MakeSkill) -> None:
    skill = make_skill(episodes=3)
    set_labels(skill / "data/episode_2.h5", outcome="failure")
    assert len(opened(skill).names) == 3
    assert opened(skill, successes_only=True).names == ("episode_0.h5", "episode_1.h5")


def test_a_full_disk_is_noticed_before_anything_is_written(
    make_skill: MakeSkill, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage(NamedTuple):
        free: int

    skill = make_skill(episodes=1)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(free=1 << 20))
    with pytest.raises(DiskSpaceError, match="1 MiB free"):
        opened(skill)


@pytest.mark.parametrize(("age_s", "expected"), [(0.0, [0, 1, 2]), (0.1, [-1, 0, 1]), (0.05, [-0.5, 0.5, 1.5])])
def test_a_step_begins_when_its_oldest_frame_was_captured(
    make_skill: MakeSkill, age_s: float, expected: list[float]
) -> None:
    cache = opened(make_skill(episodes=1, image_age_s=age_s))
    np.testing.assert_allclose(cache.origin[:3], expected, atol=1e-5)


def test_without_cameras_it_is_the_joints(make_skill: MakeSkill) -> None:
    cache = opened(make_skill(episodes=1, cameras=False))
    assert cache.frames == {}
    np.testing.assert_allclose(cache.origin[:3], [0, 1, 2])


@pytest.mark.parametrize("change", [{"unit": "1"}, {"kind": "gripper"}, {"target": "lift"}, {"high": 3.0}])
def test_actions_of_one_name_that_mean_something_else_are_refused(make_skill: MakeSkill, change: Any) -> None:
    skill = make_skill(episodes=2)
    with h5py.File(skill / "data/episode_1.h5", "r+") as file:
        action = json.loads(file.attrs["action"])
        action["dims"][0] |= change
        file.attrs["action"] = json.dumps(action)
    with pytest.raises(DataError, match=r"episode_1.h5: action is .* as in episode_0.h5"):
        opened(skill)


def test_a_disk_that_fills_up_meanwhile_is_a_sentence_and_leaves_nothing(
    make_skill: MakeSkill, monkeypatch: pytest.MonkeyPatch
) -> None:
    skill = make_skill()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("btruntime.training.trainer.cache.os.posix_fallocate", full)
    with pytest.raises(DiskSpaceError, match=r"cannot be written \(No space left on device\)\. .*train again\."):
        opened(skill)
    assert [path.name for path in (skill / CACHE_DIR).iterdir() if path.is_dir()] == []
