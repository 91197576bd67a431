from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from engine_parts import checkpoint
from numpy.typing import NDArray

from policies.checkpoint import Checkpoint
from policies.engines import choose
from policies.engines.base import Candidate, Engine, EngineError, Precision
from policies.engines.choose import ENVIRONMENT_VARIABLE, choose_engine, proof_inputs
from policies.engines.devices import DeviceError
from policies.engines.torch_cpu import EagerEngine
from policies.spec import Image

Change = Callable[[NDArray[np.float32]], NDArray[np.float32]]


class Spoilt:
    """The network with something done to its chunks."""

    def __init__(self, of: Checkpoint, name: str, change: Change):
        self.name, self.description, self.closed = name, f"a {name} engine", False
        self._eager = EagerEngine(of.network, of.spec, torch.device("cpu"))
        self._change = change

    def __call__(self, state: NDArray[np.float32], frames: Sequence[Image]) -> NDArray[np.float32]:
        return self._change(self._eager(state, frames))

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENVIRONMENT_VARIABLE, raising=False)


pytestmark = pytest.mark.usefixtures("no_variable")
TINY = checkpoint()
STD = TINY.statistics.action.std


def candidate(name: str, change: Change, precision: Precision = "half", built: list[Spoilt] | None = None) -> Candidate:
    def build(of: Checkpoint) -> Engine:
        engine = Spoilt(of, name, change)
        if built is not None:
            built.append(engine)
        return engine

    return Candidate(name, precision, build)


def shifted(deviations: float) -> Change:
    def change(chunk: NDArray[np.float32]) -> NDArray[np.float32]:
        moved = chunk.copy()
        moved[-1, 1] += deviations * STD[1]
        return moved

    return change


def times(monkeypatch: pytest.MonkeyPatch, ms: dict[str, float]) -> None:
    """Passes take that long, by name; no clock is asked."""
    monkeypatch.setattr(choose, "_duel", lambda first, second, _: (ms[first.name], ms[second.name]))


@pytest.mark.parametrize(
    ("change", "precision", "reason"),
    [
        (shifted(0.03), "half", "error 0.03, allowed 0.02"),
        (shifted(0.01), "float32", "error 0.01, allowed 0.001"),
        (lambda chunk: chunk[:-1], "half", r"chunks \(4, 4\), expected \(5, 4\)"),
        (lambda chunk: chunk * np.float32("nan"), "half", "not finite"),
    ],
)
def test_a_liar_is_refused_by_name_however_fast(
    monkeypatch: pytest.MonkeyPatch, change: Change, precision: Precision, reason: str
) -> None:
    times(monkeypatch, {"eager": 90.0, "honest": 50.0, "liar": 1.0})
    built: list[Spoilt] = []
    engine, report = choose_engine(
        TINY,
        "cpu",
        candidates=[candidate("liar", change, precision, built), candidate("honest", shifted(0.001))],
    )
    assert (engine.name, report.chosen, report.latency_ms) == ("honest", "honest", 50.0)
    assert built[0].closed
    assert re.search(f"refused liar: .*{reason}", str(report))


def test_one_that_cannot_be_built_is_told_and_the_network_runs() -> None:
    def build(_: Checkpoint) -> Engine:
        raise RuntimeError("the compiler is missing.\nA long trace")

    engine, report = choose_engine(TINY, "cpu", candidates=[Candidate("broken", "half", build)])
    assert engine.name == report.chosen == "eager"
    assert str(report).startswith("eager float32")
    assert "refused broken: " in str(report)
    assert "the compiler is missing" in str(report)
    assert "\n" not in str(report)


def test_the_fastest_is_chosen_and_the_others_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    times(monkeypatch, {"eager": 90.0, "a": 50.0, "b": 30.0, "c": 40.0})
    built: list[Spoilt] = []
    entered = [candidate(name, shifted(0.005), built=built) for name in "abc"]
    engine, report = choose_engine(TINY, "cpu", candidates=entered)
    assert engine.name == "b"
    assert [spoilt.closed for spoilt in built] == [True, False, True]
    assert str(report) == "a b engine, 30 ms, error 0.005"
    assert [trial.latency_ms for trial in report.trials] == [50.0, 30.0, 40.0]


def test_the_network_itself_may_be_the_fastest(monkeypatch: pytest.MonkeyPatch) -> None:
    times(monkeypatch, {"eager": 20.0, "a": 50.0})
    engine, report = choose_engine(TINY, "cpu", candidates=[candidate("a", shifted(0.0))])
    assert (engine.name, report.latency_ms, report.max_error) == ("eager", 20.0, 0.0)


def test_a_substitute_is_tried_only_for_one_that_failed() -> None:
    good, built = candidate("good", shifted(0.0)), []
    bad = candidate("bad", shifted(1.0))
    for first in (good, bad):
        spare = candidate("spare", shifted(0.0), built=built)
        spare = Candidate(spare.name, spare.precision, spare.build, instead_of=(first.name,))
        choose_engine(TINY, "cpu", candidates=[first, spare])
    assert len(built) == 1


def test_time_ends_the_contest_only_once_one_is_usable() -> None:
    built: list[Spoilt] = []
    bad = candidate("bad", shifted(1.0), built=built)
    entered = [bad, candidate("good", shifted(0.0), built=built), candidate("late", shifted(0.0), built=built)]
    choose_engine(TINY, "cpu", candidates=entered, budget_s=0.0)
    assert [spoilt.name for spoilt in built] == ["bad", "good"]


def test_real_samples_are_proven_on_too() -> None:
    state, frames = proof_inputs(TINY)[0]
    dark = [np.zeros_like(frame) for frame in frames]
    seen_dark = EagerEngine(TINY.network, TINY.spec, torch.device("cpu"))(state, dark)

    def change(chunk: NDArray[np.float32]) -> NDArray[np.float32]:
        return chunk + 1 if np.array_equal(chunk, seen_dark) else chunk

    assert not [trial for trial in contest(change, ()) if trial.refused]
    assert [trial.name for trial in contest(change, [(state, dark)]) if trial.refused] == ["odd"]


def contest(change: Change, samples: Sequence[choose.Sample]) -> Sequence[choose.Trial]:
    return choose_engine(TINY, "cpu", samples=samples, candidates=[candidate("odd", change)])[1].trials


def test_one_that_is_asked_for_runs_even_where_it_is_slower(monkeypatch: pytest.MonkeyPatch) -> None:
    times(monkeypatch, {"eager": 1.0, "fold-b": 5.0, "fold-a": 9.0, "other": 0.1})
    entered = [candidate(name, shifted(0.0)) for name in ("fold-a", "fold-b", "other")]
    assert choose_engine(TINY, "cpu", "fold", candidates=entered)[0].name == "fold-b"
    assert choose_engine(TINY, "cpu", "fold-a", candidates=entered)[0].name == "fold-a"


def test_one_that_is_asked_for_and_fails_is_an_error() -> None:
    entered = [candidate("liar", shifted(1.0)), candidate("other", shifted(0.0))]
    with pytest.raises(EngineError, match=r"liar.*error 1.*allowed 0\.02"):
        choose_engine(TINY, "cpu", "liar", candidates=entered)


def test_an_unknown_name_is_told_with_the_known_ones() -> None:
    with pytest.raises(EngineError, match=r"'warp'.*auto, eager, packed-bf16"):
        choose_engine(TINY, "cpu", "warp")


def test_an_unknown_device_is_told() -> None:
    with pytest.raises(DeviceError, match="'tpu'"):
        choose_engine(TINY, "tpu")


def test_the_environment_says_what_auto_means_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "a")
    times(monkeypatch, {"eager": 1.0, "a": 50.0, "b": 9.0})
    entered = [candidate(name, shifted(0.0)) for name in "ab"]
    assert choose_engine(TINY, "cpu", "auto", candidates=entered)[0].name == "a"
    assert choose_engine(TINY, "cpu", "b", candidates=entered)[0].name == "b"
    assert choose_engine(TINY, "cpu", "eager", candidates=entered)[0].name == "eager"


def test_a_slow_one_is_built_only_where_it_is_asked_for() -> None:
    built: list[Spoilt] = []
    plain = candidate("slow", shifted(0.0), built=built)
    slow = Candidate(plain.name, plain.precision, plain.build, slow=True)
    choose_engine(TINY, "cpu", candidates=[slow])
    assert not built
    assert choose_engine(TINY, "cpu", "slow", candidates=[slow])[0].name == "slow"


def test_the_choice_among_the_real_ones_is_the_same_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "_duel", lambda first, second, _: (len(first.name) * 9.0, len(second.name) * 1.0))
    first, second = (choose_engine(TINY, "cpu")[1] for _ in range(2))
    assert first == second
    assert first.chosen != "eager"


def test_proof_inputs_are_the_same_each_time_and_differ_from_each_other() -> None:
    first, second = proof_inputs(TINY), proof_inputs(TINY)
    for (state, frames), (again, frames_again) in zip(first, second, strict=True):
        assert np.array_equal(state, again)
        assert all(np.array_equal(one, other) for one, other in zip(frames, frames_again, strict=True))
    assert len({state.tobytes() for state, _ in first}) == len({frames[0].tobytes() for _, frames in first}) == 3


def test_a_network_that_overflows_is_left_to_itself_and_not_hidden_by_an_engine_that_does_not() -> None:
    broken = checkpoint()
    with torch.no_grad():
        broken.network.model.action_head.weight.fill_(float("inf"))
    harmless = candidate("harmless", lambda chunk: np.zeros_like(chunk))
    engine, report = choose_engine(broken, "cpu", candidates=[harmless])
    assert engine.name == "eager"
    assert "the network itself gives numbers that are not finite" in str(report)
