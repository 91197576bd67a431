from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from btruntime.evaluate import Contender, Job, Rate95, SceneResult, evaluate, fresh_seeds, run_batch, tally
from hal.sim.pick import PickTask
from hal.sim.specs import reference_spec


# Newcombe 1998, table I (81 of 263, 15 of 148, 0 of 20, 1 of 29), and the ends of the scale.
@pytest.mark.parametrize(
    ("successes", "scenes", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (20, 20, 0.8389, 1.0),
        (0, 0, 0.0, 1.0),
    ],
)
def test_the_wilson_interval(successes: int, scenes: int, low: float, high: float) -> None:
    assert Rate95(successes, scenes).interval == pytest.approx((low, high), abs=5e-5)


@given(st.integers(0, 500), st.integers(1, 500))
def test_the_interval_holds_the_rate_and_stays_on_the_scale(successes: int, scenes: int) -> None:
    rate = Rate95(min(successes, scenes), scenes)
    low, high = rate.interval
    assert 0 <= low <= rate.rate + 1e-12
    assert rate.rate - 1e-12 <= high <= 1


def test_a_rate_as_people_read_it() -> None:
    assert str(Rate95(15, 20)) == "15 of 20 (53% to 89%)"


@given(st.integers(0, 1000), st.integers(0, 30), st.sets(st.integers(0, 1050)))
def test_fresh_seeds_are_the_next_that_no_demonstration_used(first: int, count: int, used: set[int]) -> None:
    seeds = list(fresh_seeds(first, count, used))
    assert len(seeds) == len(set(seeds)) == count
    assert not set(seeds) & used
    assert seeds == sorted(seeds)
    if seeds:
        assert set(range(first, seeds[-1] + 1)) - set(seeds) <= used


def test_no_scenes_are_no_seeds_and_no_work(tmp_path: Path) -> None:
    assert list(fresh_seeds(3, -1, [])) == []
    assert evaluate(_job(tmp_path), [], workers=1) == []


def _job(tmp_path: Path) -> Job:
    spec = reference_spec(name="tiny", width=8, height=6, main_hz=5.0, wrist_hz=5.0)
    return Job(tmp_path, "local/pick", spec, PickTask())


def test_the_blind_leader_tries_each_scene_and_is_the_same_each_time(tmp_path: Path) -> None:
    results = run_batch(_job(tmp_path), Contender.BLIND, [7, 8])
    assert [(r.contender, r.seed, r.ending) for r in results] == [
        (Contender.BLIND, 7, "done"),
        (Contender.BLIND, 8, "done"),
    ]
    assert all(r.duration_s > 3.0 for r in results)
    assert run_batch(_job(tmp_path), Contender.BLIND, [8]) == results[1:]


def test_the_tally_counts_by_contender() -> None:
    def result(contender: Contender, seed: int, succeeded: bool) -> SceneResult:
        return SceneResult(contender, seed, succeeded, "done", 1.0)

    found = tally(
        [
            result(Contender.SKILL, 1, True),
            result(Contender.BLIND, 1, False),
            result(Contender.SKILL, 2, False),
            result(Contender.SKILL, 3, True),
        ]
    )
    assert found == {Contender.SKILL: Rate95(2, 3), Contender.BLIND: Rate95(0, 1)}
    assert tally([]) == {}


_PROGRAM = """
import sys
from pathlib import Path
from btruntime.evaluate import Contender, EvaluationStoppedError, Job, evaluate
from btruntime.session import stopping_on_signals
from hal.sim.pick import PickTask
from hal.sim.specs import reference_spec

def end(reason):
    raise EvaluationStoppedError(reason)

if __name__ == "__main__":
    spec = reference_spec(name="tiny", width=8, height=6, main_hz=5.0, wrist_hz=5.0)
    job = Job(Path("."), "local/pick", spec, PickTask())
    with stopping_on_signals(end) as stopped:
        try:
            evaluate(job, range(100_000), [Contender.BLIND], workers=1, progress=lambda each: print("one", flush=True))
        except EvaluationStoppedError:
            sys.exit(128 + stopped.number)
"""


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)]
)
def test_no_worker_outlives_the_evaluation(tmp_path: Path, number: signal.Signals, status: int) -> None:
    program = tmp_path / "program.py"
    program.write_text(_PROGRAM)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen([sys.executable, program], env=environment, stdout=subprocess.PIPE, cwd=tmp_path) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == b"one\n"
            process.send_signal(number)
            # The workers have our pipe, too: it ends when the last of them does.
            process.stdout.read()
            assert process.wait(60) == status
        finally:
            process.kill()
