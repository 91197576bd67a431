"""Batches: every frame once per pass, many episodes per batch, chunks by index with padding."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from btruntime.training.trainer.batches import Examples, Order, batches
from btruntime.training.trainer.cache import Cache, open_cache
from btruntime.training.trainer.events import silent

from .conftest import MakeSkill


def cached(make_skill: MakeSkill, **options: float) -> Cache:
    return open_cache(make_skill(**options), silent, chunk_size=6, height=32, width=32)


@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=12),
    batch_size=st.integers(1, 50),
    seed=st.integers(0, 99),
)
def test_a_pass_takes_every_example_once(lengths: list[int], batch_size: int, seed: int) -> None:
    total = sum(lengths)
    order = Order(np.array(lengths), batch_size=batch_size, seed=seed)
    steps = -(-3 * total // batch_size)
    drawn = np.concatenate([order.batch(step) for step in range(steps)])
    for number in range(3):
        assert sorted(drawn[number * total : (number + 1) * total]) == list(range(total))


def test_a_batch_of_96_covers_30_episodes() -> None:
    lengths = np.random.default_rng(0).integers(300, 900, size=30)
    order = Order(lengths, batch_size=96, seed=0)
    episode_of = np.repeat(np.arange(30), lengths)
    covered = [len(np.unique(episode_of[order.batch(step)])) for step in range(100)]
    assert np.mean(covered) > 29
    assert min(covered) >= 26
    even = Order(np.full(30, 600), batch_size=96, seed=0)
    assert all(len(np.unique(even.batch(step) // 600)) == 30 for step in range(100))


def test_the_order_is_the_seeds() -> None:
    def drawn(seed: int, step: int) -> list[int]:
        return list(Order(np.array([50, 60]), batch_size=16, seed=seed).batch(step))

    assert drawn(1, 40) == drawn(1, 40)
    assert drawn(1, 40) != drawn(2, 40)
    assert drawn(1, 0) != drawn(1, 1)


def test_a_set_smaller_than_a_batch_fills_it() -> None:
    drawn = Order(np.array([3]), batch_size=8, seed=0).batch(0)
    assert len(drawn) == 8
    assert set(drawn) == {0, 1, 2}


def test_a_chunk_follows_its_step_and_repeats_the_last_row(make_skill: MakeSkill) -> None:
    cache = cached(make_skill, episodes=2, length=12)
    batch = Examples(cache, cache.names).gather(np.array([0, 9, 12 + 4]))
    assert batch.state.shape == (3, 3)
    assert [tuple(frames.shape) for frames in batch.frames] == [(3, 32, 32, 3)] * 2
    np.testing.assert_allclose(batch.actions[0], cache.action[0:6], rtol=1e-6)
    np.testing.assert_allclose(batch.actions[1, :3], cache.action[9:12], rtol=1e-6)
    np.testing.assert_allclose(batch.actions[1, 3:], np.repeat(cache.action[11:12], 3, axis=0), rtol=1e-6)
    np.testing.assert_allclose(batch.actions[2], cache.action[16:22], rtol=1e-6)
    assert batch.is_pad.tolist()[1] == [False, False, False, True, True, True]
    assert not batch.is_pad[0].any()


def test_a_chunk_begins_at_the_capture_of_its_frames(make_skill: MakeSkill) -> None:
    cache = cached(make_skill, episodes=1, length=12, image_age_s=0.05)
    batch = Examples(cache, cache.names).gather(np.array([0, 4]))
    np.testing.assert_allclose(batch.actions[0, 0], cache.action[0], atol=1e-5)
    between = (cache.action[3:9] + cache.action[4:10]) / 2
    np.testing.assert_allclose(batch.actions[1], between, atol=1e-5)


def test_only_the_chosen_episodes_are_seen(make_skill: MakeSkill) -> None:
    cache = cached(make_skill, episodes=3)
    examples = Examples(cache, ("episode_1.h5",))
    everything = examples.gather(np.arange(len(examples)))
    start = int(cache.starts[1])
    np.testing.assert_array_equal(everything.state, cache.state[start : start + int(cache.lengths[1])])


@pytest.mark.parametrize("ahead", [1, 3])
def test_gathering_ahead_changes_nothing(make_skill: MakeSkill, ahead: int) -> None:
    cache = cached(make_skill, episodes=3)
    examples = Examples(cache, cache.names)
    order = Order(examples.lengths, batch_size=5, seed=0)
    plain = list(batches(examples, order, first=2, stop=11, pin=False))
    threaded = list(batches(examples, order, first=2, stop=11, ahead=ahead, pin=False))
    assert len(plain) == len(threaded) == 9
    for a, b in zip(plain, threaded, strict=True):
        assert torch.equal(a.frames[0], b.frames[0])
        assert torch.equal(a.actions, b.actions)


def test_processes_share_a_batch(make_skill: MakeSkill) -> None:
    cache = cached(make_skill, episodes=3)
    examples = Examples(cache, cache.names)
    order = Order(examples.lengths, batch_size=6, seed=0)
    whole = next(batches(examples, order, first=0, stop=1, pin=False))
    parts = [next(batches(examples, order, first=0, stop=1, share=slice(r, None, 2), pin=False)) for r in range(2)]
    assert torch.equal(whole.state[0::2], parts[0].state)
    assert torch.equal(whole.state[1::2], parts[1].state)
