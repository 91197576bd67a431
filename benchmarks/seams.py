"""How smooth and how good the chunk player is, by mode and by how late the chunks come.

| mode | looks again | a new chunk |
|---|---|---|
| `blend` | after the skill's `n_action_steps` | is faded in |
| `ensemble` | at every frame | is averaged with all that have an action for now |
| `receding` | after the skill's `n_action_steps` | takes over at once |

Real part: a policy of the `cpu` preset, trained on real demonstrations of a Dobot CR5 (joint velocities at 10 Hz, in a
loop of 25 Hz), acts on playbacks of episodes that it was not trained on, on the virtual clock, through the runtime. The
observations are the same in every run, so that all differences are the player's. A chunk is taken up by the tick after
its latency: 20, 60, 120 and 250 ms become 40, 80, 120 and 280.

A seam is a tick in which a new chunk has a part in the action for the first time. Its jump is the largest step between
two commands from that tick on, for 0.4 s (longer than a seam is spread out) or until the next seam, divided by the
step limit of its dimension: the 99.9th percentile of the steps in the demonstrations, shared out to ticks. Above 1 is
what people hardly ever did. Grippers are apart: a person opens and closes in one step.

`jump_p99`, `jump_max` and `gripper_jump_p99` are over the seams of all playbacks, `step_p99` is over all ticks.
`tracking_l1` is the distance to the person's command in standard deviations, as `btruntime run` tells it; in
`held_ticks` there was no action. `chunk_step_p99` is what the policy's chunks do by themselves, and `demonstrated_p99`
what the people did: no player is smoother than what it plays.

Simulated part: `success_rate` of a policy in scenes of the demo's pick task. A playback takes no notice of what is
commanded; there the robot does what it is told.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from py_trees.common import Status

from btruntime.comparison import Comparison
from btruntime.dataset.formats import open_source
from btruntime.dataset.importing import import_dataset
from btruntime.demo import DemoConfig, run_demo
from btruntime.evaluate import fresh_seeds
from btruntime.events import TickRecord
from btruntime.runtime import PolicyPool, Runtime
from btruntime.training.local import activate_run, train_locally
from btruntime.training.watching import told_to
from hal.clock import VirtualClock
from hal.playback import PlaybackRobot, RecordedStep
from hal.sim.pick import PickTask
from hal.sim.robot import SimRobot
from hal.sim.specs import demo_spec
from hal.types import ActionKind, ActionSpec, Image, RobotSpec
from policies.act.loading import load_act_policy
from policies.chunk import Mode
from policies.runner import InlineRunner, Policy
from policies.spec import PolicyInput
from skills.behaviours import PolicyLoop
from skills.episodes import Episode
from skills.episodes.naming import episode_files
from skills.kinds import build
from skills.metadata import LearnedExecution
from skills.playback import Demonstration, robot_of, steps_of
from skills.store import SkillEntry, SkillStore

Vector = NDArray[np.float64]

MODES: tuple[Mode, ...] = ("blend", "ensemble", "receding")
LATENCIES_MS = (20, 60, 120, 250)
TICK_S = 0.04
SEAM_TICKS = 10
PERCENTILE = 99.9
SKILL, QUICK_SKILL = "put-banana", "put-banana-quick"
HELD_OUT, QUICK_HELD_OUT = (20, 36, 70, 75), (20, 36)
QUICK_TRAINED_ON = (8, 11, 12, 13, 16, 18)
# Learns something in seconds.
QUICK_TRAINING = (
    *("max_steps=300", "batch_size=8", "image_height=48", "image_width=64", "dim_model=32", "heads=2"),
    *("dim_feedforward=64", "backbone_width=8", "checkpoints=1", "validation_share=0", "threads=1"),
    *("learning_rate=2e-3", "learning_rate_backbone=2e-3", "dropout=0", "ema_decay=0.98"),
)
DEMO_SKILL = "pick-up-cube"
# Far from the seeds of a demo's demonstrations, which begin at 0.
FIRST_SCENE = 700_000_000
COLUMNS = {
    "jump_p99": "{:.2f}",
    "jump_max": "{:.2f}",
    "gripper_jump_p99": "{:.2f}",
    "step_p99": "{:.2f}",
    "tracking_l1": "{:.3f}",
    "seams": "{:d}",
    "held_ticks": "{:d}",
    "success_rate": "{:.0%}",
}


def main() -> int:
    data = Path(__file__).resolve().parents[2] / "shared" / "data" / "cr5_dobot"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=data, metavar="DIR", help="the LeRobot dataset of the CR5")
    parser.add_argument("--skills-dir", type=Path, metavar="DIR", help="keeps the trained skill for the next time")
    parser.add_argument("--demo-skills", type=Path, metavar="DIR", help="skills of a demo; else the full form runs one")
    parser.add_argument("--scenes", type=int, metavar="N", help="0 for none (default: 20, quick: 4)")
    parser.add_argument("--quick", action="store_true", help="a policy that has learned little")
    parser.add_argument("--json", action="store_true", help="one object on the last line")
    args = parser.parse_args()
    scenes = (4 if args.quick else 20) if args.scenes is None else args.scenes
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="btruntime-seams-")))
        found = real_part(args.data, args.skills_dir or place / "skills", quick=args.quick)
        rates = simulated_part(_demo_skills(args, scenes, place), scenes)
    for mode in MODES:
        for latency in map(str, LATENCIES_MS):
            found["modes"][mode][latency]["success_rate"] = rates.get((mode, latency))
    print_table(found)
    if args.json:
        print(json.dumps(found))
    return 0


def print_table(found: Mapping[str, Any]) -> None:
    """For people."""
    if found["limit"] is not None:
        print("step limits: " + ", ".join(f"{name} {value:.4f}" for name, value in found["limit"].items()))
        print(f"demonstrated_p99 {found['demonstrated_p99']:.2f}, chunk_step_p99 {found['chunk_step_p99']:.2f}")
    print(f"| mode | latency ms | {' | '.join(COLUMNS)} |")
    print("|---" * (len(COLUMNS) + 2) + "|")
    for mode, rows in found["modes"].items():
        for latency, row in rows.items():
            shown = ["" if row[key] is None else form.format(row[key]) for key, form in COLUMNS.items()]
            print(f"| `{mode}` | {latency} | {' | '.join(shown)} |")


# What is measured


def step_limits(episodes: Iterable[Vector], rate_hz: float, tick_s: float = TICK_S) -> Vector:
    """(A,) the 99.9th percentile of the demonstrated steps, per tick.

    Args:
        episodes: (T, A) actions of each.
        rate_hz: of the actions.
        tick_s: between two commands.
    """
    steps = np.concatenate([np.abs(np.diff(actions, axis=0)) for actions in episodes])
    limits: Vector = np.percentile(steps, PERCENTILE, axis=0) * rate_hz * tick_s
    return limits


def relative_steps(commanded: Vector, limits: Vector) -> Vector:
    """(T - 1, A) steps between (T, A) commands, by their limits; NaN where the demonstrations never moved."""
    steps = np.abs(np.diff(commanded, axis=0))
    relative: Vector = np.divide(steps, limits, out=np.full_like(steps, np.nan), where=limits > 0)
    return relative


def seam_jumps(steps: Vector, entered: Sequence[int], window: int = SEAM_TICKS) -> Vector:
    """The largest step of each seam.

    Args:
        steps: (T - 1, A) from each command to the next.
        entered: (T,) how many chunks had had a part by each command.
        window: over how many steps a seam is spread at most; it ends where the next one begins.

    Returns:
        (S, A), without the first chunk, which follows nothing.
    """
    seams = np.flatnonzero(np.diff(entered))
    ends = np.minimum(np.append(seams[1:], len(steps)), seams + window)
    jumps = [steps[begin:end].max(axis=0) for begin, end in zip(seams, ends, strict=True)]
    return np.array(jumps).reshape(-1, steps.shape[1])


def worst(values: Vector, columns: Sequence[int], percentile: float) -> float | None:
    """That percentile over rows of the largest of these columns; None where there is nothing."""
    chosen = values[:, list(columns)]
    chosen = chosen[:, ~np.isnan(chosen).all(axis=0)]
    return float(np.percentile(chosen.max(axis=1), percentile)) if chosen.size else None


@dataclass(slots=True)
class Watched:
    """What one run commanded.

    Attributes:
        loop: of the run.
        names: of the action's dimensions.
        commanded: the actions, tick by tick.
        entered: how many chunks had had a part by then.
        held_ticks: after the first action, without one.
    """

    loop: PolicyLoop
    names: Sequence[str]
    commanded: list[list[float]] = field(default_factory=list)
    entered: list[int] = field(default_factory=list)
    held_ticks: int = 0
    tracking_l1: float = float("nan")

    def watch(self, record: TickRecord) -> None:
        """Called after each tick."""
        # What a move before or after it asks for is none of the loop's.
        if self.loop.status != Status.RUNNING or self.loop.entered_chunks == 0:
            return
        if record.asked is None:
            self.held_ticks += 1
            return
        self.commanded.append([record.asked[name] for name in self.names])
        self.entered.append(self.loop.entered_chunks)


def figures(runs: Sequence[Watched], limits: Vector, spec: ActionSpec) -> dict[str, Any]:
    """The figures of the playbacks of one mode and latency."""
    steps = [relative_steps(np.array(run.commanded), limits) for run in runs]
    jumps = np.concatenate([seam_jumps(each, run.entered) for each, run in zip(steps, runs, strict=True)])
    grippers, others = columns_of(spec)
    return {
        "jump_p99": worst(jumps, others, 99),
        "jump_max": worst(jumps, others, 100),
        "gripper_jump_p99": worst(jumps, grippers, 99),
        "step_p99": worst(np.concatenate(steps), others, 99),
        "tracking_l1": float(np.mean([run.tracking_l1 for run in runs])),
        "seams": len(jumps),
        "held_ticks": sum(run.held_ticks for run in runs),
    }


def columns_of(spec: ActionSpec) -> tuple[list[int], list[int]]:
    """Grippers, and all else that moves."""
    apart = {ActionKind.GRIPPER, ActionKind.PROGRESS, ActionKind.TERMINATION}
    grippers = [index for index, dim in enumerate(spec.dims) if dim.kind is ActionKind.GRIPPER]
    return grippers, [index for index, dim in enumerate(spec.dims) if dim.kind not in apart]


# The real part


class Remembering:
    """A policy that computes the chunk of an observation once: every playback shows the same ones."""

    def __init__(self, policy: Policy):
        self.spec = policy.spec
        self.chunks: dict[bytes, NDArray[np.float32]] = {}
        self._policy = policy

    def predict(self, inputs: PolicyInput) -> NDArray[np.float32]:
        seen = hashlib.blake2b(inputs.state.tobytes())
        for name in self.spec.camera_names:
            seen.update(np.ascontiguousarray(inputs.images[name]))
        if (key := seen.digest()) not in self.chunks:
            self.chunks[key] = self._policy.predict(inputs)
        return self.chunks[key]

    def reset(self) -> None:
        self._policy.reset()


@dataclass(frozen=True, slots=True)
class Recording:
    """An episode with its frames decoded, as every playback of it needs them."""

    path: Path
    spec: RobotSpec
    steps: tuple[RecordedStep, ...]
    demonstration: Demonstration
    frames: Mapping[tuple[str, int], Image]

    @classmethod
    def of(cls, path: Path) -> Recording:
        """All of a file."""
        with Episode(path) as episode:
            cameras, rows = episode.camera_names, range(len(episode))
            frames = {(camera, row): episode.frame(camera, row) for camera in cameras for row in rows}
            demonstration = Demonstration(episode.header.action, episode.action, episode.step_s)
            return cls(path, robot_of(episode), steps_of(episode), demonstration, frames)


class RememberedPlayback(PlaybackRobot):
    """`skills.playback.EpisodePlayback` without reading the file again."""

    def __init__(self, recording: Recording, clock: VirtualClock):
        self.path, self.demonstration = recording.path, recording.demonstration
        super().__init__(recording.spec, clock, recording.steps, lambda camera, row: recording.frames[camera, row])


def real_part(data: Path, skills_dir: Path, *, quick: bool) -> dict[str, Any]:
    """All of it but the success; nulls where the dataset is not there."""
    rows: dict[Mode, dict[str, dict[str, Any]]] = {
        mode: {str(latency): dict.fromkeys(COLUMNS) for latency in LATENCIES_MS} for mode in MODES
    }
    found: dict[str, Any] = {"limit": None, "demonstrated_p99": None, "chunk_step_p99": None, "modes": rows}
    if not data.is_dir():
        tell(f"{data} is not there: no real part")
        return found
    entry = trained_skill(data, skills_dir, quick=quick)
    files = episode_files(entry.data_dir)
    actions, spec, rate_hz = demonstrations(files.values())
    limits = step_limits(actions, rate_hz)
    _one_thread()
    policy = Remembering(load_act_policy(checkpoint_of(entry), "cpu"))
    runs: dict[tuple[Mode, int], list[Watched]] = {(mode, latency): [] for mode in MODES for latency in LATENCIES_MS}
    for number in QUICK_HELD_OUT if quick else HELD_OUT:
        tell(f"playing {files[number].name}")
        recording = Recording.of(files[number])
        for (mode, latency), watched in runs.items():
            watched.append(play(in_mode(entry, mode), recording, policy, latency * 1e-3))
    for (mode, latency), watched in runs.items():
        rows[mode][str(latency)] |= figures(watched, limits, spec)
    _, others = columns_of(spec)
    per_tick = rate_hz * TICK_S
    found["limit"] = dict(zip(spec.names, limits.tolist(), strict=True))
    for name, series in (("demonstrated_p99", actions), ("chunk_step_p99", policy.chunks.values())):
        steps = np.concatenate([relative_steps(np.asarray(each, np.float64), limits / per_tick) for each in series])
        found[name] = worst(steps, others, 99)
    return found


def trained_skill(data: Path, skills_dir: Path, *, quick: bool) -> SkillEntry:
    """The skill with a trained policy; what is in the directory already is not done again."""
    skills_dir.mkdir(parents=True, exist_ok=True)
    store, skill = SkillStore(skills_dir), QUICK_SKILL if quick else SKILL
    numbers = (*QUICK_TRAINED_ON, *QUICK_HELD_OUT) if quick else None
    tell(f"importing {data.name}")
    entry = import_dataset(open_source(data), store, skill, numbers=numbers).skill
    assert entry is not None  # there are episodes, or that was an error
    if entry.in_training:
        tell("training")
        hold_out = f"hold_out={list(QUICK_HELD_OUT if quick else HELD_OUT)}"
        options = (hold_out, *(QUICK_TRAINING if quick else ()))
        said = told_to(lambda share, note: None, tell)
        train_locally(entry.path, "1", preset="cpu", assignments=options, on_event=said)
        activate_run(entry.path, "1")
    return store.get(str(entry.id))


def demonstrations(files: Iterable[Path]) -> tuple[list[Vector], ActionSpec, float]:
    """The actions of all episodes, what they mean, and their rate in Hz."""
    actions = []
    for path in files:
        with Episode(path) as episode:
            actions.append(np.asarray(episode.action, np.float64))
            spec, rate_hz = episode.header.action, episode.header.data_frequency_hz
    return actions, spec, rate_hz


def execution_of(entry: SkillEntry) -> LearnedExecution:
    """What a learned skill says of its execution."""
    assert entry.metadata is not None
    assert isinstance(entry.metadata.execution, LearnedExecution)
    return entry.metadata.execution


def checkpoint_of(entry: SkillEntry) -> Path:
    """The file of its policy."""
    checkpoint = execution_of(entry).checkpoint
    assert checkpoint is not None
    return entry.path / checkpoint


def in_mode(entry: SkillEntry, mode: Mode) -> SkillEntry:
    """The skill with its chunks played in that mode."""
    assert entry.metadata is not None
    changed: dict[str, Any] = {"chunk_mode": mode}
    if mode == "ensemble":
        changed["n_action_steps"] = None
    execution = execution_of(entry).model_copy(update=changed)
    return replace(entry, metadata=entry.metadata.model_copy(update={"execution": execution}))


def play(entry: SkillEntry, recording: Recording, policy: Policy, latency_s: float) -> Watched:
    """One playback."""
    clock, names = VirtualClock(), recording.demonstration.spec.names
    robot = RememberedPlayback(recording, clock)
    compared = Comparison(robot)
    pool = PolicyPool(lambda checkpoint: InlineRunner(policy, latency_s=latency_s))
    with Runtime(robot, clock, pool, gate_config=robot.gate_config) as runtime:
        root = build(entry, runtime.context)
        watched = Watched(next(node for node in root.iterate() if isinstance(node, PolicyLoop)), names)
        result = runtime.run(root, [watched.watch, compared.watch], until=compared.until)
    report = compared.report()
    if not result.success or report is None:
        raise SystemExit(f"the playback of {recording.path.name} ended in {result.outcome}: {result.reason}")
    watched.tracking_l1 = report.l1
    return watched


# The simulated part


@dataclass(frozen=True, slots=True)
class Attempt:
    """One scene, for a worker."""

    skills_dir: Path
    mode: Mode
    latency_ms: int
    seed: int


def simulated_part(skills_dir: Path | None, scenes: int) -> dict[tuple[Mode, str], float]:
    """The share of scenes that succeeded, by mode and latency."""
    if skills_dir is None or scenes == 0:
        tell("no simulated part")
        return {}
    seeds = tuple(fresh_seeds(FIRST_SCENE, scenes, ()))
    cells = [(mode, latency) for mode in MODES for latency in LATENCIES_MS]
    attempts = [Attempt(skills_dir, mode, latency, seed) for mode, latency in cells for seed in seeds]
    tell(f"{len(attempts)} scenes")
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn"), initializer=_one_thread) as workers:
        succeeded = np.array(list(workers.map(attempt, attempts, chunksize=len(seeds)))).reshape(len(cells), -1)
    return {(mode, str(latency)): float(each.mean()) for (mode, latency), each in zip(cells, succeeded, strict=True)}


def attempt(what: Attempt) -> bool:
    """Whether the cube was held."""
    clock, task = VirtualClock(), PickTask()
    entry = in_mode(SkillStore(what.skills_dir).get(DEMO_SKILL), what.mode)
    robot = SimRobot(demo_spec(), clock, scene=task.scene(what.seed), seed=what.seed)
    policy = load_act_policy(checkpoint_of(entry), "cpu")
    pool = PolicyPool(lambda checkpoint: InlineRunner(policy, latency_s=what.latency_ms * 1e-3))
    with Runtime(robot, clock, pool) as runtime:
        runtime.run(build(entry, runtime.context))
        return task.succeeded(robot)


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def _demo_skills(args: argparse.Namespace, scenes: int, place: Path) -> Path | None:
    """Where the demo's skill is, which the full form makes if there is none."""
    if args.demo_skills is not None:
        inside = args.demo_skills / "skills"
        return inside if inside.is_dir() else Path(args.demo_skills)
    if args.quick or scenes == 0:
        return None
    from demo_seeds import Quiet

    from btruntime import __version__

    run_demo(DemoConfig(place / "demo", scenes=4, needed=0), Quiet(), software=f"btruntime {__version__}")
    return place / "demo" / "skills"


def tell(text: str) -> None:
    """For people, while they wait."""
    print(text, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
