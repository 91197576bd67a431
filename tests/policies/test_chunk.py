from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.chunk import Chunk, ChunkError, ChunkPlayer


def line(origin_s: float, *, slope: float = 1.0, offset: float = 0.0, steps: int = 11, period_s: float = 0.1) -> Chunk:
    """A chunk whose only value is `offset + slope * t`, from `origin_s` for 1 s."""
    times_s = origin_s + np.arange(steps) * period_s
    return Chunk((offset + slope * times_s)[:, None].astype(np.float32), times_s)


def value(player: ChunkPlayer, t_s: float) -> float:
    action = player.at(t_s)
    assert action is not None
    assert action.shape == (1,)
    assert action.dtype == np.float64
    return float(action[0])


def test_a_chunk_is_read_between_its_actions_and_held_outside_them() -> None:
    chunk = Chunk(np.array([[0, 10], [1, 20]], dtype=np.float32), np.array([5.0, 6.0]))
    assert chunk.at(5.25).tolist() == [0.25, 12.5]
    assert chunk.resample([7.0, 4.0, 5.5]).tolist() == [[1, 20], [0, 10], [0.5, 15]]
    assert chunk.covers(6.0)
    assert not chunk.covers(6.001)


@given(st.lists(st.floats(4, 7), min_size=1, max_size=5))
def test_one_time_reads_as_many_times_do(times_s: list[float]) -> None:
    chunk = Chunk(np.array([[0, 10], [1, 20], [4, 0]], dtype=np.float32), np.array([5.0, 6.0, 6.1]))
    assert np.stack([chunk.at(t) for t in times_s]) == pytest.approx(chunk.resample(times_s))


def test_a_chunk_of_one_action_is_valid_at_one_time() -> None:
    chunk = Chunk(np.array([[3.0]], dtype=np.float32), np.array([1.0]))
    assert chunk.at(1.0).tolist() == [3.0]
    assert chunk.covers(1.0)
    assert not chunk.covers(1.1)


def test_a_chunk_keeps_its_own_read_only_arrays() -> None:
    actions = np.zeros((2, 1), dtype=np.float32)
    chunk = Chunk(actions, np.array([0.0, 1.0]))
    actions[:] = 9
    assert chunk.at(0.5).tolist() == [0.0]
    with pytest.raises(ValueError, match="read-only"):
        chunk.actions[0] = 1


@pytest.mark.parametrize(
    ("actions", "times_s"),
    [
        (np.zeros((0, 2)), []),
        (np.zeros(3), [0, 1, 2]),
        (np.zeros((2, 1)), [0]),
        (np.zeros((2, 1)), [0, 0]),
        (np.zeros((2, 1)), [1, 0]),
        (np.zeros((2, 1)), [0, np.inf]),
        (np.full((2, 1), np.nan), [0, 1]),
    ],
)
def test_a_malformed_chunk_is_refused(actions: np.ndarray, times_s: list[float]) -> None:
    with pytest.raises(ChunkError):
        Chunk(actions, np.array(times_s))


def test_nan_is_no_time() -> None:
    player = ChunkPlayer()
    player.add(line(0))
    for read in (line(0).at, player.at):
        with pytest.raises(ValueError, match="NaN"):
            read(float("nan"))


@pytest.mark.parametrize("mode", ["blend", "ensemble", "receding"])
def test_nothing_is_made_up_outside_the_chunks(mode: str) -> None:
    player = ChunkPlayer(mode)  # type: ignore[arg-type]
    assert player.at(0.0) is None
    player.add(line(1.0))
    assert player.at(0.9) is None
    assert value(player, 1.0) == pytest.approx(1.0)
    assert value(player, 2.0) == pytest.approx(2.0)
    assert player.at(2.01) is None
    player.reset()
    assert player.at(1.5) is None


@pytest.mark.parametrize("mode", ["blend", "ensemble", "receding"])
def test_data_of_30_hz_runs_at_its_own_speed_in_a_loop_of_25_hz(mode: str) -> None:
    player = ChunkPlayer(mode)  # type: ignore[arg-type]
    player.add(line(0.0, steps=31, period_s=1 / 30))
    assert [value(player, k / 25) for k in range(26)] == pytest.approx([k / 25 for k in range(26)], abs=1e-6)


@pytest.mark.parametrize("mode", ["blend", "ensemble", "receding"])
def test_an_older_chunk_is_ignored(mode: str) -> None:
    player = ChunkPlayer(mode)  # type: ignore[arg-type]
    player.add(line(0.5))
    player.add(line(0.0, offset=100.0))
    assert value(player, 0.7) == pytest.approx(0.7)


def test_chunks_of_another_size_are_refused() -> None:
    player = ChunkPlayer()
    player.add(line(0.0))
    with pytest.raises(ChunkError, match="2 values per action, expected 1"):
        player.add(Chunk(np.zeros((2, 2), dtype=np.float32), np.array([1.0, 2.0])))


def test_blend_goes_linearly_from_the_old_chunk_to_the_new_one() -> None:
    player = ChunkPlayer(blend_s=0.2)
    player.add(line(0.0, slope=0.0, offset=1.0))
    assert value(player, 0.40) == 1.0
    player.add(line(0.3, slope=0.0, offset=2.0))
    assert [value(player, t) for t in (0.44, 0.50, 0.60, 0.64)] == pytest.approx([1.2, 1.5, 2.0, 2.0])


def test_a_late_chunk_is_blended_in_from_the_last_action_there_was() -> None:
    player = ChunkPlayer(blend_s=0.2)
    player.add(line(0.0, slope=0.0, offset=1.0))
    assert value(player, 1.0) == 1.0
    assert player.at(1.04) is None
    player.add(line(0.9, slope=0.0, offset=3.0))
    assert [value(player, t) for t in (1.08, 1.14, 1.24)] == pytest.approx([1.4, 2.0, 3.0])


def test_a_chunk_for_later_waits_for_its_start() -> None:
    player = ChunkPlayer(blend_s=0.2)
    player.add(line(0.0, slope=0.0, offset=1.0))
    assert value(player, 0.5) == 1.0
    player.add(line(0.7, slope=0.0, offset=2.0))
    assert [value(player, t) for t in (0.6, 0.7, 0.8, 0.9)] == pytest.approx([1.0, 1.0, 1.5, 2.0])


def test_a_new_chunk_each_tick_still_reaches_the_robot() -> None:
    player = ChunkPlayer(blend_s=0.2)
    for tick in range(100):
        now_s = tick * 0.04
        player.add(line(now_s, slope=0.0, offset=0.0 if tick < 50 else 1.0))
        last = value(player, now_s)
    assert last == pytest.approx(1.0, abs=0.01)


def test_no_jump_at_a_seam() -> None:
    player = ChunkPlayer(blend_s=0.2)
    given_out = []
    for tick in range(200):
        now_s = tick * 0.04
        if tick % 8 == 0:
            player.add(line(now_s - 0.1, slope=0.0, offset=float(tick // 8 % 2)))
        given_out.append(value(player, now_s))
    assert np.abs(np.diff(given_out)).max() <= 0.04 / 0.2 + 1e-6


def test_blend_without_time_switches_at_once() -> None:
    player = ChunkPlayer(blend_s=0.0)
    player.add(line(0.0, offset=1.0, slope=0.0))
    value(player, 0.1)
    player.add(line(0.1, offset=2.0, slope=0.0))
    assert value(player, 0.2) == 2.0


def test_ensemble_weighs_the_oldest_most() -> None:
    player = ChunkPlayer("ensemble", ensemble_m=0.5)
    for origin_s, offset in ((0.0, 1.0), (0.1, 2.0), (0.2, 4.0)):
        player.add(line(origin_s, slope=0.0, offset=offset))
    weights = np.exp(-0.5 * np.arange(3))
    assert value(player, 0.5) == pytest.approx(weights @ [1, 2, 4] / weights.sum())
    assert value(player, 1.05) == pytest.approx(weights[:2] @ [2, 4] / weights[:2].sum())


def test_receding_uses_a_chunk_for_its_steps_and_then_the_newest() -> None:
    player = ChunkPlayer("receding", n_action_steps=3)
    player.add(line(0.0, slope=0.0, offset=1.0))
    assert value(player, 0.0) == 1.0
    for origin_s, offset in ((0.05, 2.0), (0.1, 3.0)):
        player.add(line(origin_s, slope=0.0, offset=offset))
    assert [value(player, t) for t in (0.1, 0.2, 0.3, 0.4)] == [1.0, 1.0, 3.0, 3.0]
    assert [value(player, t) for t in (0.9, 1.1)] == [3.0, 3.0]  # no newer one: on to its end
    assert player.at(1.2) is None


def test_receding_over_whole_chunks() -> None:
    player = ChunkPlayer("receding")
    player.add(line(0.0, slope=0.0, offset=1.0))
    value(player, 0.0)
    player.add(line(0.5, slope=0.0, offset=2.0))
    assert [value(player, t) for t in (0.96, 1.0, 1.04)] == [1.0, 1.0, 2.0]


@pytest.mark.parametrize("mode", ["blend", "ensemble", "receding"])
def test_a_chunk_enters_when_an_action_is_made_of_it(mode: str) -> None:
    player = ChunkPlayer(mode, n_action_steps=1)  # type: ignore[arg-type]
    assert player.at(0.0) is None
    player.add(line(0.1))
    assert player.at(0.0) is None
    assert player.entered == 0
    entered = []
    for t_s, adds in ((0.1, False), (0.2, False), (0.3, True), (0.4, True), (0.44, False), (2.0, False)):
        if adds:
            player.add(line(t_s - 0.05))
        player.at(t_s)
        entered.append(player.entered)
    assert entered == [1, 1, 2, 3, 3, 3]
    player.reset()
    assert player.entered == 0


def test_receding_a_chunk_that_waits_has_not_entered() -> None:
    player = ChunkPlayer("receding", n_action_steps=3)
    player.add(line(0.0))
    player.at(0.0)
    player.add(line(0.05))
    player.at(0.1)
    assert player.entered == 1
    player.at(0.3)
    assert player.entered == 2


@pytest.mark.parametrize(
    "arguments", [{"mode": "jump"}, {"blend_s": -1.0}, {"blend_s": float("nan")}, {"n_action_steps": 0}]
)
def test_a_player_refuses_impossible_settings(arguments: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(arguments))):
        ChunkPlayer(**arguments)  # type: ignore[arg-type]


@given(
    mode=st.sampled_from(["blend", "ensemble", "receding"]),
    events=st.lists(st.tuples(st.floats(0, 0.3), st.floats(-1, 1), st.booleans()), max_size=60),
    blend_s=st.floats(0, 2),
)
def test_actions_stay_within_what_the_chunks_say(
    mode: str, events: list[tuple[float, float, bool]], blend_s: float
) -> None:
    player = ChunkPlayer(mode, blend_s=blend_s, n_action_steps=4)  # type: ignore[arg-type]
    now_s, newest_end_s = 0.0, -1.0
    for step_s, offset, adds in events:
        now_s += step_s
        if adds:
            player.add(line(now_s - 0.05, slope=0.0, offset=offset))
            newest_end_s = now_s - 0.05 + 1.0
        action = player.at(now_s)
        assert (action is not None) == (now_s <= newest_end_s + 1e-9)
        assert action is None or -1 - 1e-6 <= action[0] <= 1 + 1e-6


def test_memory_is_bounded() -> None:
    for mode in ("blend", "ensemble", "receding"):
        player = ChunkPlayer(mode, blend_s=1e6)  # type: ignore[arg-type]
        for tick in range(300):
            player.add(line(tick * 1e-4))
            player.at(tick * 1e-4)
        assert len(player._layers) <= 64
        assert len(player._ensemble) <= 256
