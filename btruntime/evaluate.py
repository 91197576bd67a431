"""How good is a skill? Success in fresh simulated scenes, beside two yardsticks that must fail.

Everything runs on the virtual clock through the same runtime, gate and tree as on a robot. Scenes are independent of
each other, so they are shared out to worker processes.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from enum import StrEnum
from multiprocessing.connection import Connection
from pathlib import Path
from types import MappingProxyType
from typing import NoReturn

import numpy as np

from btruntime.runtime import PolicyPool, Runtime
from foundation.errors import BtruntimeError
from hal.clock import Rate, VirtualClock
from hal.motion import Resource
from hal.sim.pick import PickTask
from hal.sim.robot import SimRobot
from hal.sim.stage import staged
from hal.types import Command, RobotSpec
from policies.runner import InlineRunner, Policy, PolicyRunner
from policies.spec import InputSpec, PolicyInput
from skills.check import check
from skills.kinds import build
from skills.store import SkillStore

# One period of the runtime: a forward pass that is asked for in a tick is there in the next.
_LATENCY_S = 0.04
_BATCH = 4
_LEADER_HZ = 25.0


class EvaluationError(BtruntimeError):
    """The evaluation itself could not be done."""


class EvaluationStoppedError(EvaluationError):
    """The evaluation was asked to stop; its workers have ended."""


class Contender(StrEnum):
    """Who tries: the skill as it is, the policy with black pictures, the scripted leader that does not look."""

    SKILL = "skill"
    BLANK = "blank images"
    BLIND = "blind leader"


@dataclass(frozen=True, slots=True)
class SceneResult:
    """One attempt in one scene."""

    contender: Contender
    seed: int
    succeeded: bool
    ending: str
    duration_s: float


@dataclass(frozen=True, slots=True)
class Job:
    """What a worker needs to know; must be picklable.

    Attributes:
        skills_dir, skill: where the skill is, and its ID.
        robot: the spec of the simulated robot.
    """

    skills_dir: Path
    skill: str
    robot: RobotSpec
    task: PickTask


@dataclass(frozen=True, slots=True)
class Rate95:
    """Successes out of a number of scenes, with the Wilson score interval at 95 % (Wilson 1927)."""

    successes: int
    scenes: int

    @property
    def rate(self) -> float:
        return self.successes / self.scenes if self.scenes else float("nan")

    @property
    def interval(self) -> tuple[float, float]:
        """Lower and upper end of the interval."""
        if not self.scenes:
            return 0.0, 1.0
        z, n, p = 1.959964, self.scenes, self.rate
        centre = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        return max(0.0, centre - half), min(1.0, centre + half)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.successes} of {self.scenes} ({low:.0%} to {high:.0%})"


def evaluate(
    job: Job,
    seeds: Sequence[int],
    contenders: Iterable[Contender] = tuple(Contender),
    *,
    workers: int | None = None,
    progress: Callable[[SceneResult], None] = lambda result: None,
) -> list[SceneResult]:
    """Let every contender try every scene.

    Args:
        job: what is evaluated.
        seeds: of the scenes.
        contenders: who tries.
        workers: processes; by default one per core.
        progress: told each result as it comes, in no particular order.

    Returns:
        Results in the order of contenders and seeds.

    Raises:
        EvaluationError: the skill does not fit the robot, or a worker died.
        BtruntimeError: the skill cannot be run at all.
    """
    who = tuple(contenders)
    if seeds and set(who) - {Contender.BLIND}:
        _refuse_unfit(job)
    batches = [(c, tuple(seeds[i : i + _BATCH])) for c in who for i in range(0, len(seeds), _BATCH)]
    results: list[SceneResult] = []
    count = max(1, min(workers or os.cpu_count() or 1, len(batches)))
    context = multiprocessing.get_context("spawn")
    # Only this process has the other end: it closes when we close it, and when we are killed.
    theirs, lifeline = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(count, mp_context=context, initializer=_begin_worker, initargs=(theirs,))
    with theirs, lifeline, pool:
        try:
            # On a thread of its own: what a signal handler raises must not cut short how a worker is told what it is.
            with ThreadPoolExecutor(1) as starter:
                attempts = starter.submit(lambda: [pool.submit(run_batch, job, c, batch) for c, batch in batches])
                futures = attempts.result()
            for done in as_completed(futures):
                for result in done.result():
                    results.append(result)
                    progress(result)
        except BaseException as error:
            # The workers end now, in the middle of a batch.
            lifeline.close()
            pool.shutdown(wait=False, cancel_futures=True)
            if isinstance(error, BrokenExecutor):
                raise EvaluationError(f"a worker of the evaluation died: {error}. Is there enough memory?") from error
            raise
    return sorted(results, key=lambda r: (who.index(r.contender), seeds.index(r.seed)))


def _refuse_unfit(job: Job) -> None:
    report = check(SkillStore(job.skills_dir).get(job.skill), job.robot)
    if not report.runnable:
        raise EvaluationError(f"{report.skill} cannot run on robot {report.robot}: {' '.join(report.problems)}")


def tally(results: Iterable[SceneResult]) -> Mapping[Contender, Rate95]:
    """Successes by contender."""
    found: dict[Contender, list[bool]] = {}
    for result in results:
        found.setdefault(result.contender, []).append(result.succeeded)
    return MappingProxyType({who: Rate95(sum(wins), len(wins)) for who, wins in found.items()})


def run_batch(job: Job, contender: Contender, seeds: Sequence[int]) -> list[SceneResult]:
    """Some scenes, one after the other, in this process."""
    if contender is Contender.BLIND:
        return [_led(job, seed) for seed in seeds]
    pool = PolicyPool(lambda checkpoint: _runner(checkpoint, blank=contender is Contender.BLANK))
    try:
        return [_driven(job, contender, pool, seed) for seed in seeds]
    finally:
        pool.close()


def _begin_worker(lifeline: Connection) -> None:
    # Ctrl-C is for the parent, which ends the workers; and two workers with two threads each only wait for each other.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, args=(lifeline,), name="parent", daemon=True).start()
    import torch

    torch.set_num_threads(1)


def _end_with_parent(lifeline: Connection) -> NoReturn:
    """Nothing is ever sent: what comes is the end."""
    lifeline.poll(None)
    os._exit(1)


def _driven(job: Job, contender: Contender, pool: PolicyPool, seed: int) -> SceneResult:
    """The skill's own tree in one scene."""
    clock = VirtualClock()
    robot = SimRobot(job.robot, clock, scene=job.task.scene(seed), seed=seed)
    entry = SkillStore(job.skills_dir).get(job.skill)
    with Runtime(robot, clock, pool) as runtime:
        result = runtime.run(build(entry, runtime.context))
        succeeded = job.task.succeeded(robot)
    return SceneResult(contender, seed, succeeded, result.outcome.value, result.duration_s)


def _led(job: Job, seed: int) -> SceneResult:
    """The scripted leader in one scene, without looking where the object is."""
    spec = job.robot.action_spec(base=False, progress=False, grippers=False)
    with staged(job.robot, job.task.scene(seed), job.task.start_pose(), seed=seed) as stage:
        clock, leader = stage.clock, job.task.leader(stage.robot, blind=True)
        rate = Rate(clock, 1.0 / _LEADER_HZ)
        rate.wait()
        began_s = clock.now()
        leader.start(stage.robot.read(), began_s)
        lease = stage.gate.acquire(Contender.BLIND, [Resource.ARM])
        while not leader.finished:
            sample = leader.read(clock.now())
            assert sample is not None  # it has started
            stage.gate.submit(lease, Command(spec, sample.qpos, clock.now()))
            rate.wait()
        succeeded = job.task.succeeded(stage.robot)
        return SceneResult(Contender.BLIND, seed, succeeded, "done", clock.now() - began_s)


def _runner(checkpoint: Path, *, blank: bool) -> PolicyRunner:
    from policies.act.loading import load_act_policy

    policy = load_act_policy(checkpoint, "cpu")
    return InlineRunner(_Blanked(policy) if blank else policy, latency_s=_LATENCY_S)


class _Blanked:
    """A policy that is shown black pictures."""

    def __init__(self, policy: Policy):
        self._policy = policy
        self.spec: InputSpec = policy.spec

    def predict(self, inputs: PolicyInput) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        black = {name: np.zeros_like(frame) for name, frame in inputs.images.items()}
        return self._policy.predict(PolicyInput(inputs.state, black, inputs.oldest_capture_s))

    def reset(self) -> None:
        self._policy.reset()


def fresh_seeds(first: int, count: int, used: Iterable[int]) -> Iterator[int]:
    """`count` scene seeds from `first` on that no demonstration used."""
    taken = set(used)
    seed = first
    while count > 0:
        if seed not in taken:
            yield seed
            count -= 1
        seed += 1
