"""The error of known predictions against numbers that were worked out by hand, and what the executor sends."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from open_loop_bench import CHUNK, HELD_OUT, SIDE, STD, TRAINING, add_run, make_skill
from torch import Tensor

from btruntime.open_loop.baselines import Yardstick
from btruntime.open_loop.error import Errors, open_loop_errors
from btruntime.training.trainer.batches import Batch, Examples, Indices
from btruntime.training.trainer.cache import open_cache
from btruntime.training.trainer.events import silent
from btruntime.training.trainer.validation import OpenLoopError, Predict, measure
from policies.checkpoint import load
from policies.preprocess import to_tensor

CPU = torch.device("cpu")


def measured(tmp_path: Path, predict: Predict, *, horizon: int, batch_size: int = 3) -> OpenLoopError:
    cache = open_cache(make_skill(tmp_path), silent, chunk_size=horizon, height=SIDE, width=SIDE)
    examples = Examples(cache, [HELD_OUT])
    std = np.array(STD, dtype=np.float32)
    return measure({"it": predict}, examples, np.arange(4), std=std, batch_size=batch_size, device=CPU)["it"]


def always(*action: float, horizon: int) -> Predict:
    return lambda batch, numbers: torch.tensor(action).expand(len(numbers), horizon, 2)


# The first joint goes 1, 3, 5, 7, the second stays at 1; with (2, 0) the errors are 1, 1, 3, 5 and always 1.
def test_the_error_is_over_valid_steps_in_standard_deviations(tmp_path: Path) -> None:
    error = measured(tmp_path, always(2, 0, horizon=3), horizon=3)
    # Chunks of 3 from steps 0 to 3: 1+1+3+5, then 1+3+5, then 3+5, which are 4 + 3 + 2 steps.
    assert error.by_dim == pytest.approx((27 / 9, 1.0))
    assert error.l1 == pytest.approx((3 / 2 + 1 / 10) / 2)
    assert error.by_step == pytest.approx(((2.5 / 2 + 0.1) / 2, (3 / 2 + 0.1) / 2, (4 / 2 + 0.1) / 2))


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_a_horizon_beyond_the_episode_ends_with_it(tmp_path: Path, batch_size: int) -> None:
    error = measured(tmp_path, always(2, 1, horizon=6), horizon=6, batch_size=batch_size)
    assert error.by_dim == pytest.approx((32 / 10, 0.0))
    assert error.by_step == pytest.approx((2.5 / 4, 3 / 4, 4 / 4, 5 / 4))


def test_predictions_beyond_the_horizon_do_not_count(tmp_path: Path) -> None:
    error = measured(tmp_path, always(2, 0, horizon=7), horizon=1)
    assert error.by_dim == pytest.approx((10 / 4, 1.0))
    assert len(error.by_step) == 1


def test_all_get_the_same_examples(tmp_path: Path) -> None:
    cache = open_cache(make_skill(tmp_path), silent, chunk_size=2, height=SIDE, width=SIDE)
    seen: dict[str, list[tuple[Batch, Indices]]] = {"a": [], "b": []}

    def watched(who: str) -> Predict:
        def predict(batch: Batch, numbers: Indices) -> Tensor:
            seen[who].append((batch, numbers))
            return batch.actions

        return predict

    told: list[tuple[int, int]] = []
    found = measure(
        {who: watched(who) for who in seen},
        Examples(cache, [HELD_OUT]),
        np.array([0, 3, 1]),
        std=np.ones(2, dtype=np.float32),
        batch_size=2,
        device=CPU,
        progress=lambda done, total: told.append((done, total)),
    )
    assert [list(numbers) for _, numbers in seen["a"]] == [[0, 3], [1]]
    assert all(mine is theirs for (mine, _), (theirs, _) in zip(seen["a"], seen["b"], strict=True))
    assert found["a"] == found["b"] == OpenLoopError(0.0, (0.0, 0.0), (0.0, 0.0))
    assert told == [(2, 3), (3, 3)]


def errors_of(
    skill: Path, checkpoint: Path, *, horizon: int = CHUNK, every: int = 2, episodes: tuple[str, ...] = (HELD_OUT,)
) -> Errors:
    return open_loop_errors(
        load(checkpoint),
        open_cache(skill, silent, chunk_size=horizon, height=SIDE, width=SIDE),
        episodes=episodes,
        training=TRAINING,
        n_action_steps=every,
        device=CPU,
        batch_size=3,
    )


@pytest.mark.parametrize("horizon", [CHUNK, 2])
def test_the_policy_and_the_yardsticks_go_through_the_same_code(tmp_path: Path, horizon: int) -> None:
    skill = make_skill(tmp_path)
    path = add_run(skill)
    found = errors_of(skill, path, horizon=horizon)
    examples = Examples(open_cache(skill, silent, chunk_size=horizon, height=SIDE, width=SIDE), [HELD_OUT])
    batch = examples.gather(np.arange(4))
    with torch.inference_mode():
        predicted = load(path).network.predict(batch.state, [to_tensor(frames) for frames in batch.frames])
    difference = (predicted[:, :horizon] - batch.actions).abs()[~batch.is_pad].numpy()
    np.testing.assert_allclose(found.policy.by_dim, difference.mean(0), rtol=1e-5)
    assert found.policy.l1 == pytest.approx(float((difference / STD).mean()), rel=1e-5)
    assert list(found.yardsticks) == list(Yardstick)
    if horizon == 2:
        # Holding 1, 1, 3, 5: errors 0 and 2, 2 and 4, 2 and 4, 2.
        assert found.yardsticks[Yardstick.HOLD].by_dim == pytest.approx((16 / 7, 0.0))
        # Frames 0 to 3 by number are 1, 4, 4, 4: errors 0, 1, 1, 3, then 1, 1, 3.
        assert found.yardsticks[Yardstick.MEDIAN_BY_FRAME].by_dim[0] == pytest.approx(10 / 7)


def test_the_executor_goes_through_a_chunk_until_it_looks_again(tmp_path: Path) -> None:
    skill = make_skill(tmp_path)
    path = add_run(skill)
    # Episode 0 has three steps: its last look is at step 2, in the same batch as the first step of episode 2.
    traces = errors_of(skill, path, horizon=1, every=2, episodes=("episode_0.h5", HELD_OUT)).traces
    assert [trace.episode for trace in traces] == ["episode_0.h5", HELD_OUT]
    for trace, length in zip(traces, (3, 4), strict=True):
        examples = Examples(open_cache(skill, silent, chunk_size=1, height=SIDE, width=SIDE), [trace.episode])
        batch = examples.gather(np.arange(length))
        with torch.inference_mode():
            chunks = load(path).network.predict(batch.state, [to_tensor(frames) for frames in batch.frames]).numpy()
        expected = [chunks[step - step % 2, step % 2] for step in range(length)]
        np.testing.assert_allclose(trace.sent, expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(trace.demonstrated, batch.actions[:, 0].numpy())


def test_the_executor_sends_what_the_chunk_has_for_the_time_of_the_step(tmp_path: Path) -> None:
    """Frames that are half a step old: a chunk that begins with them is half a step further at the step itself."""
    skill = make_skill(tmp_path, frame_age_s=0.05)
    path = add_run(skill)
    (trace,) = errors_of(skill, path, every=1).traces
    batch = Examples(open_cache(skill, silent, chunk_size=1, height=SIDE, width=SIDE), [HELD_OUT]).gather(np.arange(4))
    with torch.inference_mode():
        chunks = load(path).network.predict(batch.state, [to_tensor(frames) for frames in batch.frames]).numpy()
    np.testing.assert_allclose(trace.sent, (chunks[:, 0] + chunks[:, 1]) / 2, rtol=1e-4, atol=1e-5)
