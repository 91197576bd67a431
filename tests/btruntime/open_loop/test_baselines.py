"""The yardsticks against numbers that were worked out by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from open_loop_bench import SIDE, TRAINING, make_skill

from btruntime.open_loop.baselines import Yardstick, medians_by_frame, yardsticks
from btruntime.open_loop.rows import rows_at
from btruntime.training.trainer.cache import Cache, open_cache
from btruntime.training.trainer.events import silent


def cache_of(tmp_path: Path, *, frame_age_s: float = 0.0) -> Cache:
    skill = make_skill(tmp_path, frame_age_s=frame_age_s)
    return open_cache(skill, silent, chunk_size=3, height=SIDE, width=SIDE)


# Training actions: (0, 0), (2, 10), (4, 20) and (2, 2), (6, 10). Held out: (1, 1), (3, 1), (5, 1), (7, 1).
@pytest.mark.parametrize(
    ("yardstick", "step", "chunk"),
    [
        (Yardstick.MEAN, 0, [(2.8, 8.4)] * 3),
        (Yardstick.MEAN, 3, [(2.8, 8.4)] * 3),
        (Yardstick.MEDIAN, 2, [(2, 10)] * 3),
        (Yardstick.HOLD, 0, [(1, 1)] * 3),
        (Yardstick.HOLD, 1, [(1, 1)] * 3),
        (Yardstick.HOLD, 3, [(5, 1)] * 3),
        (Yardstick.MEDIAN_BY_FRAME, 0, [(1, 1), (4, 10), (4, 20)]),
        (Yardstick.MEDIAN_BY_FRAME, 1, [(4, 10), (4, 20), (4, 20)]),
        (Yardstick.MEDIAN_BY_FRAME, 3, [(4, 20)] * 3),
    ],
)
def test_what_a_yardstick_predicts(
    tmp_path: Path, yardstick: Yardstick, step: int, chunk: list[tuple[float, float]]
) -> None:
    chunks = yardsticks(cache_of(tmp_path), TRAINING, 3)[yardstick]
    found = chunks(np.array([2, 2]), np.array([step, step]))
    assert found.shape == (2, 3, 2)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [chunk, chunk], rtol=1e-6)


def test_steps_of_several_episodes_at_once(tmp_path: Path) -> None:
    chunks = yardsticks(cache_of(tmp_path), TRAINING, 1)[Yardstick.HOLD]
    found = chunks(np.array([0, 1, 2, 0]), np.array([2, 1, 3, 0]))
    np.testing.assert_array_equal(found[:, 0], [(2, 10), (2, 2), (5, 1), (0, 0)])


def test_a_chunk_by_frame_number_begins_at_the_capture_of_the_frame(tmp_path: Path) -> None:
    """Frames that are half a step old: between the medians (1, 1), (4, 10) and (4, 20)."""
    chunks = yardsticks(cache_of(tmp_path, frame_age_s=0.05), TRAINING, 3)[Yardstick.MEDIAN_BY_FRAME]
    found = chunks(np.array([2, 2]), np.array([1, 0]))
    np.testing.assert_allclose(found, [[(2.5, 5.5), (4, 15), (4, 20)], [(1, 1), (2.5, 5.5), (4, 15)]], rtol=1e-5)


def test_the_held_out_episode_is_in_no_yardstick(tmp_path: Path) -> None:
    cache = cache_of(tmp_path)
    without = yardsticks(cache, TRAINING, 2)
    changed = Cache(cache.content, cache.frames, cache.state, cache.action.copy(), cache.origin)
    changed.action[cache.starts[2] :] = 1000
    after = yardsticks(changed, TRAINING, 2)
    for yardstick in (Yardstick.MEAN, Yardstick.MEDIAN, Yardstick.MEDIAN_BY_FRAME):
        where = np.array([2]), np.array([1])
        np.testing.assert_array_equal(without[yardstick](*where), after[yardstick](*where))


def test_medians_by_frame_are_of_the_episodes_that_are_so_long() -> None:
    episodes = [np.array([[value]] * length, dtype=np.float32) for value, length in ((1, 1), (2, 3), (9, 3), (4, 4))]
    np.testing.assert_array_equal(medians_by_frame(episodes)[:, 0], [3, 4, 4, 4])


def test_rows_between_rows() -> None:
    rows = np.array([[0, 10], [2, 20]], dtype=np.float32)
    found = rows_at(rows, np.array([[-1.0, 0.25], [1.0, 7.5]]))
    np.testing.assert_allclose(found, [[(0, 10), (0.5, 12.5)], [(2, 20), (2, 20)]])
