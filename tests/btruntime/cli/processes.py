"""Commands as processes of their own, as a person starts them, and a skill small enough to run in each of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from btruntime.record.config import RecorderConfig
from btruntime.record.simulated import record_demonstrations
from hal.sim.pick import PickTask
from hal.sim.robot import REST_POSE
from hal.sim.specs import demo_spec
from policies.act.config import ACTConfig
from policies.act.model import ACTNetwork
from policies.checkpoint import save
from policies.normalize import MeanStd, Statistics
from policies.spec import CameraInput, InputSpec
from skills.metadata import activate, update_metadata
from skills.store import SkillStore

PROGRAM = "import sys; from btruntime.cli import main; sys.exit(main())"
"""What the console script does, without the path of this machine."""

SKILL = "press"
RUN = "1"
CHECKPOINT = "act_policy_step_1.pth"
SIDE = 16
RATE_HZ = 10.0
_TINY = {
    "chunk_size": 4,
    "batch_size": 2,
    "max_steps": 4,
    "image_height": 32,
    "image_width": 32,
    "dim_model": 16,
    "heads": 2,
    "dim_feedforward": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "vae_encoder_layers": 1,
    "backbone_width": 2,
    "checkpoints": 2,
    "log_every": 1,
    "num_workers": 0,
    "threads": 1,
    "device": "cpu",
}
TINY_TRAINING = tuple(word for name, value in _TINY.items() for word in ("--set", f"{name}={value}"))
"""Hyperparameters of a training of a few seconds."""
_ROOT = Path(__file__).parents[3]
_PATIENCE_S = 120.0


@dataclass(frozen=True)
class Ended:
    """A command that has ended; `status` is negative where a signal ended it by itself."""

    status: int
    out: str
    err: str

    @property
    def sentence(self) -> str:
        """What a person reads on standard error; the command has failed, and said so in one line."""
        assert self.status == 1, (self.status, self.out, self.err)
        self.assert_calm()
        lines = [line for line in self.err.splitlines() if line.startswith("btruntime: ")]
        assert len(lines) == 1, self.err
        return lines[0].removeprefix("btruntime: ")

    def assert_calm(self) -> None:
        """Nobody was shown the inside of the program."""
        assert "Traceback" not in self.out + self.err, self.err
        assert "Exception ignored" not in self.err, self.err


@dataclass(frozen=True)
class Place:
    """A directory with `skills/`, `agents/` and `flights/` of one test."""

    root: Path

    @property
    def skills(self) -> Path:
        return self.root / "skills"

    @property
    def skill(self) -> Path:
        """The skill that the tests break."""
        return self.skills / SKILL

    @property
    def run(self) -> Path:
        """Its only run."""
        return self.skill / RUN

    @property
    def checkpoint(self) -> Path:
        return self.run / CHECKPOINT

    @property
    def data(self) -> Path:
        return self.skill / "data"

    @property
    def flights(self) -> Path:
        return self.root / "flights"

    def flight(self) -> Path:
        """The only flight record."""
        (found,) = self.flights.glob("*.jsonl")
        return found


def start(
    place: Place,
    *arguments: str,
    program: str = PROGRAM,
    prefix: tuple[str, ...] = (),
    prepare: Callable[[], None] | None = None,
) -> subprocess.Popen[str]:
    """A command under way, in a process group of its own."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(_ROOT),
        "OMP_NUM_THREADS": "1",
        "BTRUNTIME_SKILLS_DIR": str(place.skills),
        "BTRUNTIME_AGENTS_DIR": str(place.root / "agents"),
        "BTRUNTIME_FLIGHTS_DIR": str(place.flights),
    }
    return subprocess.Popen(
        [*prefix, sys.executable, "-c", program, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=place.root,
        preexec_fn=prepare,
        process_group=0,
    )


def end(process: subprocess.Popen[str]) -> Ended:
    """Wait for it."""
    out, err = process.communicate(timeout=_PATIENCE_S)
    return Ended(process.returncode, out, err)


def ran(
    place: Place,
    *arguments: str,
    program: str = PROGRAM,
    prefix: tuple[str, ...] = (),
    prepare: Callable[[], None] | None = None,
) -> Ended:
    """A command from its start to its end."""
    with under_way(place, *arguments, program=program, prefix=prefix, prepare=prepare) as process:
        return end(process)


@contextmanager
def under_way(
    place: Place,
    *arguments: str,
    program: str = PROGRAM,
    prefix: tuple[str, ...] = (),
    prepare: Callable[[], None] | None = None,
) -> Iterator[subprocess.Popen[str]]:
    """A command that does not outlive the block."""
    process = start(place, *arguments, program=program, prefix=prefix, prepare=prepare)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def until(seen: Callable[[], object], process: subprocess.Popen[str]) -> None:
    """Wait until it is so, as long as the process lives."""
    deadline_s = time.monotonic() + _PATIENCE_S
    while not seen():
        if process.poll() is not None:
            raise AssertionError((process.returncode, *process.communicate()))
        assert time.monotonic() < deadline_s, "it never came"
        time.sleep(0.01)


def children(pid: int) -> list[int]:
    """Process ids of the children of a process, whichever of its threads started them."""
    return [
        int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()
    ]


def said(path: Path, text: str) -> bool:
    """Whether one of the flight records in that directory has the text in it."""
    return any(text in record.read_text(errors="replace") for record in path.glob("*.jsonl"))


def status_of(number: signal.Signals) -> tuple[int, int]:
    """Both ways to end by a signal: told apart by nobody who starts the command from a shell."""
    return 128 + number, -number


def make_skill(skills: Path, *, episodes: int = 2, duration_s: float = 1.0) -> None:
    """A learned skill for `sim:demo` with demonstrations and a run: its policy stays where the arm rests."""
    robot = demo_spec()
    entry = SkillStore(skills).create(SKILL)
    config = RecorderConfig(data_frequency=RATE_HZ, image_width=SIDE, image_height=SIDE)
    record_demonstrations(PickTask(), robot, entry.data_dir, range(episodes), config, software="test 1")
    spec = InputSpec(
        cameras=tuple(CameraInput(name=name, height=32, width=32) for name in robot.camera_names),
        joint_names=robot.joint_names,
        action=tuple(dim.model_dump(mode="json") for dim in robot.action_spec(base=True, progress=False).dims),
        data_frequency_hz=RATE_HZ,
        chunk_size=10,
        robot=robot.name,
    )
    config = ACTConfig(
        chunk_size=spec.chunk_size,
        state_dim=spec.state_dim,
        action_dim=spec.action_dim,
        cameras=spec.camera_names,
        dim_model=16,
        heads=2,
        dim_feedforward=16,
        encoder_layers=1,
        decoder_layers=1,
        vae_encoder_layers=1,
        backbone_width=2,
    )
    rest = np.array(REST_POSE, dtype=np.float32)
    picture = MeanStd(np.zeros((3, 1, 1)), np.ones((3, 1, 1)))
    # A drive of 0.1 m/s, so that a base that has come to rest can be told from one that never moved.
    action = MeanStd(np.concatenate([rest, [0.1, 0.0]]), np.full(len(rest) + 2, 1e-3))
    statistics = Statistics(MeanStd(rest, np.ones_like(rest)), action, dict.fromkeys(spec.camera_names, picture))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = ACTNetwork(config)
    network.set_statistics(statistics)
    (entry.path / RUN).mkdir()
    path = save(entry.path / RUN, 1, network.state_dict(), statistics, spec, config)
    assert path.name == CHECKPOINT
    activate(entry.path, RUN, CHECKPOINT, "dataset_stats.pt", fill={"duration": duration_s})
    update_metadata(entry.path / "metadata.json", execution={"start_pose": [float(angle) for angle in rest]})
