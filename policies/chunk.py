"""Time-indexed action chunks, and the player that turns a series of them into one action per tick.

Every action has the time it was meant for, so data of one rate runs in a loop of another at the demonstrated
speed, and a chunk that arrives late is entered at the right place.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from foundation.errors import BtruntimeError

Mode = Literal["blend", "ensemble", "receding"]
Vector = NDArray[np.float64]

# Shorter, and seams are steeper than what people do: with 0.2 s the worst of a policy on real recordings (`benchmarks/
# seams.py`) had steps of 1.1 to 1.3 of the limit of the demonstrations, with 0.3 s 0.9, as close to what they did.
_BLEND_S = 0.3
_MAX_LAYERS = 64
_MAX_ENSEMBLE = 256
# Sums of periods miss the times they are meant to meet by rounding.
_SLACK_S = 1e-9


class ChunkError(BtruntimeError):
    """An action chunk is malformed."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """H actions of A values, with the time each is meant for; valid from the first of these times to the last.

    Attributes:
        actions: (H, A) float32, finite, read-only.
        times_s: (H,) float64, finite, strictly increasing, read-only.
    """

    actions: NDArray[np.float32]
    times_s: NDArray[np.float64]

    def __post_init__(self) -> None:
        actions = np.array(self.actions, dtype=np.float32)
        times_s = np.array(self.times_s, dtype=np.float64)
        if actions.ndim != 2 or times_s.shape != (len(actions),) or len(actions) == 0:
            raise ChunkError(f"a chunk needs actions (H, A) and times (H,), got {actions.shape} and {times_s.shape}.")
        if not np.isfinite(actions).all() or not np.isfinite(times_s).all():
            raise ChunkError("a chunk holds a value that is not finite.")
        if (np.diff(times_s) <= 0).any():
            raise ChunkError("the times of a chunk must increase.")
        for name, array in (("actions", actions), ("times_s", times_s)):
            array.setflags(write=False)
            object.__setattr__(self, name, array)

    @classmethod
    def regular(cls, actions: NDArray[np.float32], *, origin_s: float, period_s: float) -> Chunk:
        """A chunk whose action k is meant for `origin_s + k * period_s`."""
        return cls(actions, origin_s + np.arange(len(actions), dtype=np.float64) * period_s)

    @property
    def start_s(self) -> float:
        return float(self.times_s[0])

    @property
    def end_s(self) -> float:
        return float(self.times_s[-1])

    def at(self, t_s: float) -> Vector:
        """(A,) action at `t_s`, linearly interpolated; outside the chunk its first or last action.

        Raises:
            ValueError: the time is NaN.
        """
        if math.isnan(t_s):
            raise ValueError("a chunk cannot be read at the time NaN")
        after = int(self.times_s.searchsorted(t_s, side="right"))
        if after == 0 or after == len(self.times_s):
            held: Vector = self.actions[min(after, len(self.times_s) - 1)].astype(np.float64)
            return held
        left_s, right_s = self.times_s[after - 1], self.times_s[after]
        share = (t_s - left_s) / (right_s - left_s)
        action: Vector = self.actions[after - 1] * (1.0 - share) + self.actions[after] * share
        return action

    def resample(self, times_s: ArrayLike) -> Vector:
        """Actions at the given times, linearly interpolated.

        Args:
            times_s: (N,) seconds; need not be sorted.

        Returns:
            (N, A) float64. Times outside the chunk give its first or last action.

        Raises:
            ValueError: a time is NaN.
        """
        times = np.asarray(times_s, dtype=np.float64)
        if np.isnan(times).any():
            raise ValueError("a chunk cannot be read at the time NaN")
        if len(self.times_s) == 1:
            return np.repeat(self.actions.astype(np.float64), len(times), axis=0)
        before = np.clip(np.searchsorted(self.times_s, times, side="right") - 1, 0, len(self.times_s) - 2)
        left_s, right_s = self.times_s[before], self.times_s[before + 1]
        share = np.clip((times - left_s) / (right_s - left_s), 0.0, 1.0)[:, None]
        mixed: Vector = self.actions[before] * (1.0 - share) + self.actions[before + 1] * share
        return mixed

    def covers(self, t_s: float) -> bool:
        """True when there is an action for that time."""
        return self.start_s - _SLACK_S <= t_s <= self.end_s + _SLACK_S


@dataclass(slots=True)
class _Layer:
    """A chunk over the older ones; its weight goes from 0 to 1 from `ramp_s` on. None: not used yet."""

    chunk: Chunk
    ramp_s: float | None = None

    def weight(self, t_s: float, blend_s: float) -> float:
        if self.ramp_s is None or blend_s <= 0:
            return 1.0
        return min(max((t_s - self.ramp_s) / blend_s, 0.0), 1.0)


class ChunkPlayer:
    """One action per tick from chunks that arrive at any time. For one thread; never blocks; bounded memory.

    Modes:
        blend: a new chunk is faded in linearly over `blend_s`, starting from the last action that was handed out.
            An older one that ends meanwhile counts with its last action. Chunks that come faster than the fade
            are faded in on top of each other, each at the times it was made for.
        ensemble: the average of all chunks that have an action for now, weighted exp(-m i), i = 0 for the oldest
            (Zhao et al. 2023, algorithm 2).
        receding: a chunk is used for `n_action_steps` of its steps (all of them by default), then the newest
            follows, without a fade.

    In every mode a chunk carries on to its end when no newer one is there, and nothing is made up beyond it.
    """

    def __init__(
        self,
        mode: Mode = "blend",
        *,
        blend_s: float = _BLEND_S,
        n_action_steps: int | None = None,
        ensemble_m: float = 0.01,
    ):
        if mode not in ("blend", "ensemble", "receding"):
            raise ValueError(f"mode is {mode!r}, expected blend, ensemble or receding")
        if not blend_s >= 0:
            raise ValueError(f"blend_s is {blend_s}, expected 0 or more")
        if n_action_steps is not None and n_action_steps < 1:
            raise ValueError(f"n_action_steps is {n_action_steps}, expected 1 or more")
        self._mode = mode
        self._blend_s = blend_s
        self._n_action_steps = n_action_steps
        self._ensemble_m = ensemble_m
        self.reset()

    def reset(self) -> None:
        """Forget all chunks."""
        self._last_t_s: float | None = None
        self._newest: Chunk | None = None
        self._layers: list[_Layer] = []
        self._ensemble: deque[Chunk] = deque(maxlen=_MAX_ENSEMBLE)
        self._current: Chunk | None = None
        self._current_until_s = 0.0
        self._entered: Chunk | None = None
        self._entered_count = 0

    @property
    def entered(self) -> int:
        """How many chunks have had a part in an action so far; more than at the tick before is a seam."""
        return self._entered_count

    @property
    def end_s(self) -> float | None:
        """The time of the last action there is; None before the first chunk."""
        return None if self._newest is None else self._newest.end_s

    def add(self, chunk: Chunk) -> None:
        """Take a new chunk; one with an older origin than the newest is ignored.

        Raises:
            ChunkError: it has another number of values per action than the one before.
        """
        newest = self._newest
        if newest is not None:
            if chunk.actions.shape[1] != newest.actions.shape[1]:
                raise ChunkError(
                    f"a chunk has {chunk.actions.shape[1]} values per action, expected {newest.actions.shape[1]}."
                )
            if chunk.start_s < newest.start_s:
                return
        self._newest = chunk
        if self._mode == "blend":
            self._add_layer(chunk)
        elif self._mode == "ensemble":
            self._ensemble.append(chunk)

    def at(self, t_s: float) -> Vector | None:
        """(A,) float64 action for `t_s`; None when no valid action exists for that time.

        Raises:
            ValueError: the time is NaN.
        """
        if math.isnan(t_s):
            raise ValueError("a chunk cannot be read at the time NaN")
        if self._mode == "blend":
            action = self._blended(t_s)
        elif self._mode == "ensemble":
            action = self._ensembled(t_s)
        else:
            action = self._receding(t_s)
        self._last_t_s = t_s
        return action

    def _enter(self, chunk: Chunk) -> None:
        if chunk is not self._entered:
            self._entered = chunk
            self._entered_count += 1

    def _add_layer(self, chunk: Chunk) -> None:
        # A layer that no tick has used yet is superseded as a whole.
        if self._layers and self._layers[-1].ramp_s is None:
            self._layers.pop()
        self._layers.append(_Layer(chunk))
        del self._layers[:-_MAX_LAYERS]

    def _blended(self, t_s: float) -> Vector | None:
        """Newest chunk over the older ones; those that no longer count are dropped."""
        self._start_ramp(t_s)
        while len(self._layers) > 1 and self._layers[1].weight(t_s, self._blend_s) >= 1.0 and self._begun(1, t_s):
            del self._layers[0]
        usable = [layer for layer in self._layers if layer.chunk.start_s - _SLACK_S <= t_s]
        if not usable or not usable[-1].chunk.covers(t_s):
            return None
        self._enter(usable[-1].chunk)
        action = usable[0].chunk.at(t_s)
        for layer in usable[1:]:
            share = layer.weight(t_s, self._blend_s)
            action = action * (1.0 - share) + layer.chunk.at(t_s) * share
        return action

    def _begun(self, index: int, t_s: float) -> bool:
        return self._layers[index].chunk.start_s - _SLACK_S <= t_s

    def _start_ramp(self, t_s: float) -> None:
        """Fade the newest layer in from the last action handed out: its weight at this tick is already above 0.

        Starting at this tick instead would keep every chunk of a fast engine at weight 0.
        """
        newest = self._layers[-1] if self._layers else None
        if newest is None or newest.ramp_s is not None or t_s < newest.chunk.start_s - _SLACK_S:
            return
        since_s = t_s if self._last_t_s is None else self._last_t_s
        newest.ramp_s = min(max(since_s, newest.chunk.start_s), t_s)

    def _ensembled(self, t_s: float) -> Vector | None:
        while self._ensemble and self._ensemble[0].end_s + _SLACK_S < t_s:
            self._ensemble.popleft()
        valid = [chunk for chunk in self._ensemble if chunk.covers(t_s)]
        if not valid:
            return None
        self._enter(valid[-1])
        weights = np.exp(-self._ensemble_m * np.arange(len(valid)))
        average: Vector = (weights / weights.sum()) @ np.stack([chunk.at(t_s) for chunk in valid])
        return average

    def _receding(self, t_s: float) -> Vector | None:
        due = self._current is None or t_s > self._current_until_s + _SLACK_S or not self._current.covers(t_s)
        if due and self._newest is not self._current and self._newest is not None and self._newest.covers(t_s):
            self._current = self._newest
            self._current_until_s = self._use_until_s(self._newest, t_s)
        if self._current is None or not self._current.covers(t_s):
            return None
        self._enter(self._current)
        return self._current.at(t_s)

    def _use_until_s(self, chunk: Chunk, t_s: float) -> float:
        """The last time at which a chunk adopted at `t_s` is used before a newer one."""
        if self._n_action_steps is None or len(chunk.times_s) == 1:
            return chunk.end_s
        period_s = (chunk.end_s - chunk.start_s) / (len(chunk.times_s) - 1)
        return min(t_s + (self._n_action_steps - 1) * period_s, chunk.end_s)
