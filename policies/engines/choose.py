"""The fastest engine that computes what the network computes, found out on this machine when a policy is loaded.

Nobody is trusted: each engine first computes a few chunks that are compared with the network's own. Then it is timed
against the best so far, pass by pass in turns, so that other work on the machine slows both down.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from policies.checkpoint import Checkpoint
from policies.engines.base import BOUNDS, Candidate, Engine, EngineError, EngineReport, Trial
from policies.engines.cuda import cuda_candidates
from policies.engines.devices import choose_device
from policies.engines.openvino import openvino_candidates
from policies.engines.torch_cpu import EagerEngine, cpu_candidates
from policies.normalize import error_line
from policies.spec import Image

ENVIRONMENT_VARIABLE = "BTRUNTIME_ENGINE"
"""What "auto" means; an engine that is asked for by name is not affected."""

Sample = tuple[NDArray[np.float32], Sequence[Image]]
"""A state (S,), and per camera a frame of the size that the spec says."""

_BUDGET_S = 6.0
_ROUNDS = 5
_AUTO, _EAGER = "auto", EagerEngine.name


def choose_engine(
    checkpoint: Checkpoint,
    device: str = "auto",
    wanted: str = "auto",
    *,
    samples: Sequence[Sample] = (),
    candidates: Sequence[Candidate] | None = None,
    budget_s: float = _BUDGET_S,
) -> tuple[Engine, EngineReport]:
    """The engine for a checkpoint, proven and warmed up.

    Args:
        checkpoint: its network may be moved to the device, and be held by the engine.
        device: see `policies.engines.devices.choose_device`.
        wanted: "auto" for the fastest, or what $BTRUNTIME_ENGINE says; "eager" for the network itself, untimed; else
            the name of an engine, or its beginning, which must then prove itself.
        samples: inputs to prove on beside made-up ones.
        candidates: instead of those that fit the device.
        budget_s: once an engine has proven itself, no further candidate is begun after that time.

    Raises:
        DeviceError: the device is unknown or not there.
        EngineError: the engine that was asked for is unknown, or cannot run this policy here.
    """
    target = choose_device(device)
    if wanted == _AUTO:
        wanted = os.environ.get(ENVIRONMENT_VARIABLE) or _AUTO
    entered = candidates_for(target) if candidates is None else list(candidates)
    if wanted == _AUTO:
        entered = [candidate for candidate in entered if not candidate.slow]
    elif wanted != _EAGER:
        entered = _named(entered, wanted)
    inputs = [*proof_inputs(checkpoint), *samples]
    proof = None if wanted == _EAGER else _Proof.of(checkpoint, inputs)
    eager = EagerEngine(checkpoint.network, checkpoint.spec, target)
    eager(*inputs[0])
    if proof is None:
        return eager, EngineReport(_EAGER, eager.description, None, None, ())
    return _contest(checkpoint, proof, eager, entered, budget_s, may_be_eager=wanted == _AUTO)


def proof_inputs(checkpoint: Checkpoint) -> list[Sample]:
    """Inputs to compare engines on, the same in every process: noise, shapes, and a picture of one colour."""
    spec, random = checkpoint.spec, np.random.default_rng(0)
    state = checkpoint.statistics.state
    samples: list[Sample] = []
    for make in (_noise, _shapes, _plain):
        drawn = state.mean + state.std * random.standard_normal(spec.state_dim).astype(np.float32)
        samples.append((drawn.astype(np.float32), [make(random, cam.height, cam.width) for cam in spec.cameras]))
    return samples


@dataclass(frozen=True, slots=True)
class _Proof:
    """What the network itself computes for some inputs."""

    samples: Sequence[Sample]
    chunks: Sequence[NDArray[np.float32]]
    deviation: NDArray[np.float32]

    @classmethod
    def of(cls, checkpoint: Checkpoint, inputs: Sequence[Sample]) -> _Proof:
        reference = EagerEngine(checkpoint.network, checkpoint.spec, torch.device("cpu"))
        return cls(inputs, [reference(*sample) for sample in inputs], checkpoint.statistics.action.std)

    def error(self, engine: Engine) -> float:
        """The largest, in deviations.

        Raises:
            EngineError: chunks have another shape, or a number that is not finite; the network's own too.
        """
        errors = []
        for sample, expected in zip(self.samples, self.chunks, strict=True):
            if not np.isfinite(expected).all():
                raise EngineError("the network itself gives numbers that are not finite.")
            chunk = engine(*sample)
            if chunk.shape != expected.shape:
                raise EngineError(f"it gives chunks {chunk.shape}, expected {expected.shape}.")
            if not np.isfinite(chunk).all():
                raise EngineError("it gives numbers that are not finite.")
            errors.append(np.abs((chunk.astype(np.float64) - expected) / self.deviation).max())
        return float(np.max(errors))


def _contest(
    checkpoint: Checkpoint,
    proof: _Proof,
    eager: Engine,
    entered: Sequence[Candidate],
    budget_s: float,
    *,
    may_be_eager: bool,
) -> tuple[Engine, EngineReport]:
    began_s = time.monotonic()
    best, best_trial = eager, Trial(_EAGER, max_error=0.0)
    trials: list[Trial] = []
    usable: set[str] = set()
    for candidate in entered:
        if usable.intersection(candidate.instead_of):
            continue
        if usable and time.monotonic() - began_s > budget_s:
            break
        engine, trial = _tried(candidate, checkpoint, proof)
        if engine is not None:
            usable.add(candidate.name)
            best_ms, ours_ms = _duel(best, engine, proof.samples[0])
            trial, best_trial = replace(trial, latency_ms=ours_ms), replace(best_trial, latency_ms=best_ms)
            loser = engine
            if ours_ms < best_ms or (best is eager and not may_be_eager):
                best, loser, best_trial = engine, best, trial
            loser.close()
        trials.append(trial)
    if best is eager and not may_be_eager:
        raise EngineError("; ".join(f"engine {trial.name} cannot be used: {trial.refused}" for trial in trials))
    report = EngineReport(best.name, best.description, best_trial.latency_ms, best_trial.max_error, tuple(trials))
    return best, report


def _tried(candidate: Candidate, checkpoint: Checkpoint, proof: _Proof) -> tuple[Engine | None, Trial]:
    """The engine if it holds its bound."""
    engine: Engine | None = None
    try:
        engine = candidate.build(checkpoint)
        error = proof.error(engine)
    except Exception as problem:  # noqa: BLE001 - whatever is wrong with an engine, another one runs the policy
        if engine is not None:
            engine.close()
        return None, Trial(candidate.name, refused=error_line(problem).rstrip("."))
    bound = BOUNDS[candidate.precision]
    if not error <= bound:
        engine.close()
        return None, Trial(candidate.name, max_error=error, refused=f"error {error:.2g}, allowed {bound:g}")
    return engine, Trial(candidate.name, max_error=error)


def _duel(first: Engine, second: Engine, sample: Sample) -> tuple[float, float]:
    """Median milliseconds of a pass of each, taken in turns."""
    times_ms: tuple[list[float], list[float]] = ([], [])
    for _ in range(_ROUNDS):
        for engine, passed in zip((first, second), times_ms, strict=True):
            began_s = time.perf_counter()
            engine(*sample)
            passed.append((time.perf_counter() - began_s) * 1e3)
    return statistics.median(times_ms[0]), statistics.median(times_ms[1])


def candidates_for(device: torch.device) -> list[Candidate]:
    """Engines for a device, the most promising first."""
    if device.type == "cuda":
        return cuda_candidates()
    return [*cpu_candidates(), *openvino_candidates()]


def _named(entered: Sequence[Candidate], wanted: str) -> list[Candidate]:
    """Those whose name is `wanted` or begins with it."""
    found = [candidate for candidate in entered if f"{candidate.name}-".startswith(f"{wanted}-")]
    if not found:
        names = ", ".join((_AUTO, _EAGER, *(candidate.name for candidate in entered)))
        raise EngineError(f"engine is {wanted!r}, expected one of {names}.")
    return found


def _noise(random: np.random.Generator, height: int, width: int) -> Image:
    return random.integers(0, 256, (height, width, 3), dtype=np.uint8)


def _shapes(random: np.random.Generator, height: int, width: int) -> Image:
    """A gradient with rectangles on it."""
    rows, columns = np.linspace(0, 1, height)[:, None, None], np.linspace(0, 1, width)[None, :, None]
    picture = 255 * (rows * random.random(3) + columns * random.random(3)) / 2
    for _ in range(8):
        top, left = random.integers(0, height), random.integers(0, width)
        picture[top : top + height // 4 + 1, left : left + width // 4 + 1] = random.integers(0, 256, 3)
    return picture.astype(np.uint8)


def _plain(random: np.random.Generator, height: int, width: int) -> Image:
    return np.broadcast_to(random.integers(0, 256, 3, dtype=np.uint8), (height, width, 3)).copy()
