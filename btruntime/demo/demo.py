"""The whole path in simulation: record, train, activate, run in real time, evaluate in fresh scenes.

Each step goes through the same code as the command of its own: `record`, `train run`, `run`, `evaluate`.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from btruntime.evaluate import Contender, EvaluationStoppedError, Job, Rate95, evaluate, fresh_seeds, tally
from btruntime.events import RunResult
from btruntime.record.config import RecorderConfig
from btruntime.record.recorder import Recorded
from btruntime.record.simulated import record_demonstrations
from btruntime.runtime import PolicyPool, process_policies
from btruntime.session import Places, Ran, run_by_id, stopping_on_signals
from btruntime.training.local import activate_run, train_locally
from btruntime.training.watching import told_to
from foundation.errors import BtruntimeError
from hal.clock import MonotonicClock
from hal.sim.pick import PickTask
from hal.sim.robot import SimRobot
from hal.sim.specs import demo_spec
from hal.types import RobotSpec
from skills.ids import directory_name
from skills.metadata import METADATA_NAME, update_metadata
from skills.store import SkillEntry, SkillStore

SKILL_NAME = "Pick up cube"
HAND_OVER_NAME = "Hand over"
AGENT_ID = "demo"
RUN_ID = "1"
# Demonstrations, fresh scenes and the real-time run draw their scenes from ranges that cannot meet.
_DEMONSTRATION_SEEDS, _FRESH_SEEDS, _LIVE_SEEDS = 0, 500_000_000, 900_000_000
_SEEDS_PER_DEMO = 1_000
_HAND_OVER_POSE = (1.2, 0.1, 0.6, 0.4, 0.0)
_GRIP_CLOSED_RAD, _GRIP_OPEN_RAD = 0.15, 0.7
AGENT_FILE = '''"""Picks up the cube, hands it over, and waves."""

from btruntime import Agent


class Demo(Agent):
    """The demo's agent: a learned skill, a poses skill and a replay skill, one after the other."""

    id = "demo"
    display_name = "Demo"

    def get_skills(self) -> list[str]:
        return ["local/pick-up-cube", "local/hand-over", "builtin/wave"]

    def get_prompt(self) -> str:
        return "Pick up the cube, hand it over, and wave."
'''


class DemoError(BtruntimeError):
    """The demo cannot begin, or was stopped."""


class DemoStoppedError(DemoError):
    """A signal stopped the demo; what it has written stays."""

    def __init__(self, message: str, signal_number: int):
        super().__init__(message)
        self.signal_number = signal_number


class Bar(Protocol):
    """Progress of one step."""

    def advance(self) -> None:
        """One more is done."""

    def reach(self, done: float, note: str = "") -> None:
        """So much is done."""


class Screen(Protocol):
    """Whoever shows the demo to a person."""

    def section(self, title: str) -> None:
        """A new step begins."""

    def say(self, text: str) -> None:
        """One line for the person."""

    def bar(self, title: str, total: float) -> AbstractContextManager[Bar]:
        """Progress of a step while the block runs."""
        ...


@dataclass(frozen=True, slots=True)
class DemoConfig:
    """How much of everything.

    Attributes:
        directory: gets `skills/`, `agents/` and `flights/`; must not hold another demo.
        preset: of the trainer.
        needed: fewest successes of the skill, out of `scenes`.
        yardstick_share: largest share of `scenes` in which a yardstick may succeed.
    """

    directory: Path
    seed: int = 0
    demonstrations: int = 120
    scenes: int = 20
    preset: str = "demo"
    needed: int = 14
    yardstick_share: float = 0.1
    train_options: tuple[str, ...] = ()

    @classmethod
    def full(cls, directory: Path, seed: int) -> DemoConfig:
        """Trains longer and is judged more strictly."""
        return cls(directory, seed, demonstrations=240, scenes=100, preset="demo-full", needed=95)


@dataclass(frozen=True)
class DemoReport:
    """What the demo measured, and where everything is."""

    config: DemoConfig
    run: RunResult
    rates: Mapping[Contender, Rate95]
    places: Places
    flight: Path
    took_s: Mapping[str, float] = field(default_factory=dict)

    @property
    def shortcomings(self) -> tuple[str, ...]:
        """What is not as it should be; empty when the demo has shown what it promises."""
        found = []
        skill = self.rates[Contender.SKILL]
        if not self.run.success:
            found.append(f"the real-time run ended in {self.run.outcome}: {self.run.reason.rstrip('.')}")
        if skill.successes < self.config.needed:
            found.append(f"the skill held the cube in {skill}, expected at least {self.config.needed}")
        found += [
            f"the {who} held the cube in {self.rates[who]}: the task is too easy to prove anything"
            for who in (Contender.BLIND, Contender.BLANK)
            if self.rates[who].rate > self.config.yardstick_share
        ]
        return tuple(found)

    def figures(self) -> dict[str, Any]:
        """For `--json`."""
        skill, timing = self.rates[Contender.SKILL], self.run.timing
        return {
            "success_rate": skill.rate,
            "success_interval": list(skill.interval),
            "scenes": skill.scenes,
            "blind_rate": self.rates[Contender.BLIND].rate,
            "blank_rate": self.rates[Contender.BLANK].rate,
            "run_outcome": self.run.outcome.value,
            "period_ms_mean": timing.period_ms_mean,
            "lateness_ms_p50": timing.lateness_ms_p50,
            "lateness_ms_p99": timing.lateness_ms_p99,
            "lateness_ms_max": timing.lateness_ms_max,
            "late_ticks": timing.late_ticks,
            "ticks": self.run.ticks,
            "seed": self.config.seed,
            "directory": str(self.config.directory),
            "took_s": {step: round(seconds, 1) for step, seconds in self.took_s.items()},
        }


def run_demo(config: DemoConfig, screen: Screen, *, software: str) -> DemoReport:
    """Do all of it.

    Raises:
        DemoError: the directory is not free, or a signal stopped the demo.
        BtruntimeError: a step failed.
    """
    task, spec = PickTask(), demo_spec()
    places = _prepare(config)
    store = SkillStore(places.skills_dir)
    took_s: dict[str, float] = {}

    def timed(step: str, began_s: float) -> None:
        took_s[step] = time.monotonic() - began_s

    began_s = time.monotonic()
    screen.section(f"1  Record {config.demonstrations} demonstrations on the simulated robot (virtual clock)")
    seeds = _record(config, task, spec, store.create(SKILL_NAME), screen, software)
    _add_hand_over(store)
    timed("record", began_s)

    began_s = time.monotonic()
    screen.section(f"2  Train an ACT policy on them (preset {config.preset})")
    _train(config, store, screen)
    timed("train", began_s)

    began_s = time.monotonic()
    screen.section("3  Run the agent in real time at 25 Hz")
    ran = _run(config, task, spec, places, screen)
    timed("run", began_s)

    began_s = time.monotonic()
    screen.section(f"4  Try the skill in {config.scenes} fresh scenes, beside two yardsticks that must fail")
    rates = _evaluate(config, task, spec, store, seeds, screen)
    timed("evaluate", began_s)
    return DemoReport(config, ran.result, rates, places, ran.flight, took_s)


def free_directory(wished: Path) -> Path:
    """`wished`, or the same name with the first number that nothing is called yet."""
    number, directory = 1, wished
    while directory.exists():
        number += 1
        directory = wished.with_name(f"{wished.name}-{number}")
    return directory


def _prepare(config: DemoConfig) -> Places:
    directory = config.directory
    if directory.exists() and any(directory.iterdir()):
        raise DemoError(f"{directory} is not empty. Choose another --dir; nothing is ever overwritten.")
    needed_bytes = config.demonstrations * 6_000_000 * 2
    directory.mkdir(parents=True, exist_ok=True)
    free_bytes = shutil.disk_usage(directory).free
    if free_bytes < needed_bytes:
        raise DemoError(
            f"{directory}: the demo needs about {needed_bytes / 1e9:.1f} GB, {free_bytes / 1e9:.1f} GB are free."
        )
    places = Places(directory / "skills", directory / "agents", directory / "flights")
    (directory / "agents").mkdir()
    (directory / "agents" / "demo.py").write_text(AGENT_FILE, encoding="utf-8")
    return places


def _record(
    config: DemoConfig, task: PickTask, spec: RobotSpec, entry: SkillEntry, screen: Screen, software: str
) -> range:
    """Record the demonstrations; returns the seeds of their scenes."""
    first = _DEMONSTRATION_SEEDS + config.seed * _SEEDS_PER_DEMO
    seeds = range(first, first + config.demonstrations)
    recorder = RecorderConfig(data_frequency=min(camera.rate_hz for camera in spec.cameras))
    stop: list[str] = []
    with stopping_on_signals(stop.append) as stopped, screen.bar("recording", len(seeds)) as bar:

        def advance(seed: int, recorded: Recorded | None) -> None:
            bar.reach(seed - first + 1, "trashed" if recorded is None else recorded.path.name)

        saved = record_demonstrations(
            task,
            spec,
            entry.data_dir,
            seeds,
            recorder,
            software=software,
            progress=advance,
            cancelled=lambda: bool(stop),
        )
    if stopped.number is not None:
        raise DemoStoppedError(f"{stop[0]} {len(saved)} episodes are in {entry.data_dir}.", stopped.number)
    minutes = sum(each.duration_s for each in saved) / 60
    screen.say(f"{len(saved)} episodes, {minutes:.1f} minutes of demonstration, in {entry.data_dir}")
    return seeds


def _add_hand_over(store: SkillStore) -> None:
    """A poses skill: hold the cube out to the side, and let go."""
    entry = store.create(HAND_OVER_NAME, "poses")
    poses = [[*_HAND_OVER_POSE, grip] for grip in (_GRIP_CLOSED_RAD, _GRIP_OPEN_RAD)]
    update_metadata(
        entry.path / METADATA_NAME,
        guidelines="Hold what is in the hand out to the left, and let go of it.",
        execution={"poses": poses, "steps": 1.2},
    )


def _train(config: DemoConfig, store: SkillStore, screen: Screen) -> None:
    entry = store.get(directory_name(SKILL_NAME))
    with screen.bar("training", 1.0) as bar:
        directory = train_locally(
            entry.path,
            RUN_ID,
            preset=config.preset,
            assignments=(f"seed={config.seed}", *config.train_options),
            on_event=told_to(bar.reach, screen.say),
        )
    update_metadata(
        entry.path / METADATA_NAME,
        guidelines="Pick up the cube in front of the arm and lift it.",
    )
    activate_run(entry.path, RUN_ID)
    screen.say(f"run {RUN_ID} is in {directory}, activated in {entry.path / METADATA_NAME}")


def _run(config: DemoConfig, task: PickTask, spec: RobotSpec, places: Places, screen: Screen) -> Ran:
    clock, seed = MonotonicClock(), _LIVE_SEEDS + config.seed * _SEEDS_PER_DEMO
    robot = SimRobot(spec, clock, scene=task.scene(seed), seed=seed)
    pool = PolicyPool(process_policies())
    try:
        ran = run_by_id(f"agent/{AGENT_ID}", robot, clock, pool, places, header={"scene": seed})
    finally:
        pool.close()
    if ran.signal_number is not None:
        raise DemoStoppedError(f"{ran.result.reason} The flight record is {ran.flight}.", ran.signal_number)
    if ran.flight_problem is not None:
        screen.say(f"warning: {ran.flight_problem}")
    screen.say(f"{ran.result.outcome}: {ran.result.reason}" if ran.result.reason else str(ran.result.outcome))
    return ran


def _evaluate(
    config: DemoConfig, task: PickTask, spec: RobotSpec, store: SkillStore, used: range, screen: Screen
) -> Mapping[Contender, Rate95]:
    first = _FRESH_SEEDS + config.seed * _SEEDS_PER_DEMO
    seeds = tuple(fresh_seeds(first, config.scenes, used))
    entry = store.get(directory_name(SKILL_NAME))
    job = Job(store.user_dir, str(entry.id), spec, task)

    def end(reason: str) -> None:
        raise EvaluationStoppedError(reason)

    with stopping_on_signals(end) as stopped:
        try:
            with screen.bar("evaluating", config.scenes * len(Contender)) as bar:
                return tally(evaluate(job, seeds, progress=lambda result: bar.advance()))
        except EvaluationStoppedError as error:
            raise DemoStoppedError(str(error), stopped.number or 0) from error
