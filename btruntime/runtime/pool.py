"""Loaded policies, kept by the identity of their checkpoint file: a second run of a skill does not load again."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from pathlib import Path

from policies.act.loading import load_act_policy
from policies.manifest import CheckpointFile, ManifestError, read_run
from policies.process import ProcessRunner
from policies.runner import InlineRunner, PolicyRunner

MakeRunner = Callable[[Path], PolicyRunner]


class PolicyPool:
    """Policies by checkpoint. `get` may block and may be called from any thread; a failed policy is made anew.

    Args:
        make: starts a policy from its checkpoint file.
        capacity: how many stay loaded; the one that was used longest ago goes first.
    """

    def __init__(self, make: MakeRunner, *, capacity: int = 2):
        self._make, self._capacity = make, capacity
        self._runners: dict[CheckpointFile, PolicyRunner] = {}
        self._lock = threading.Lock()

    def get(self, checkpoint: Path) -> PolicyRunner:
        """The policy of a checkpoint, loading or loaded.

        Raises:
            ManifestError: the file, or the description beside it, is missing or malformed.
            BtruntimeError: it cannot be loaded.
        """
        with self._lock:
            try:
                identity = CheckpointFile.of(checkpoint)
            except FileNotFoundError:
                raise ManifestError(f"{checkpoint} is missing. Train the skill, or activate another run.") from None
            runner = self._runners.pop(identity, None)
            if runner is not None and runner.error is not None:
                runner.close()
                runner = None
            runner = runner or self._make(checkpoint)
            self._runners[identity] = runner
            while len(self._runners) > self._capacity:
                self._runners.pop(next(iter(self._runners))).close()
            return runner

    def reports(self) -> list[str]:
        """What the loaded policies tell of themselves, in the order of their last use."""
        with self._lock:
            reports = [runner.report for runner in self._runners.values()]
        return [report for report in reports if report is not None]

    def close(self) -> None:
        """Unload all. Idempotent."""
        with self._lock:
            while self._runners:
                self._runners.popitem()[1].close()


def process_policies(device: str = "auto", engine: str = "eager") -> MakeRunner:
    """Each policy in a process of its own: what runs beside a real-time loop.

    Args:
        device: "cpu", "cuda", or "auto": a GPU where there is one.
        engine: what computes: "eager" for the network itself, "auto" for the fastest that computes the same within a
            bound, or the name of one (`policies.engines.choose.choose_engine`).
    """

    def make(checkpoint: Path) -> PolicyRunner:
        spec = read_run(checkpoint.parent).input_spec
        return ProcessRunner(functools.partial(load_act_policy, checkpoint, device, engine), spec)

    return make


def inline_policies(*, latency_s: float = 0.0, device: str = "cpu") -> MakeRunner:
    """Each policy in this process, `latency_s` late, for the virtual clock; by the network itself, in float32."""

    def make(checkpoint: Path) -> PolicyRunner:
        return InlineRunner(load_act_policy(checkpoint, device), latency_s=latency_s)

    return make
