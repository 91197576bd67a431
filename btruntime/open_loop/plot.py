"""The picture of an open-loop evaluation: what was demonstrated and what the policy would have sent, over time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from btruntime.open_loop.error import Trace
from btruntime.open_loop.evaluation import ActionName, OpenLoopReport
from foundation.files import replacing

_EPISODES = 4
_DPI = 100
_WIDTH_IN, _ROW_IN, _MARGIN_IN = 16.0, 1.5, 1.4
_DEMONSTRATED, _SENT, _LOOK = "#57606a", "#0969da", "#d8dee4"


def plot(report: OpenLoopReport, path: Path) -> None:
    """Write a PNG, 1600 pixels wide: a column per episode (the first four), a row per action dimension.

    It replaces the file at `path` as a whole.

    Raises:
        OSError: the file cannot be written.
    """
    shown = report.traces[:_EPISODES]
    height_in = _MARGIN_IN + _ROW_IN * len(report.dims)
    figure = Figure(figsize=(_WIDTH_IN, height_in), dpi=_DPI, layout="constrained")
    grid = figure.subplots(len(report.dims), len(shown), sharex="col", sharey="row", squeeze=False)
    for column, trace in enumerate(shown):
        for row, dim in enumerate(report.dims):
            _draw(grid[row, column], trace, row, report)
            if column == 0:
                _name(grid[row, 0], dim)
        error = np.abs(trace.sent - trace.demonstrated).mean(axis=0)
        for row, (axes, dim) in enumerate(zip(grid[:, column], report.dims, strict=True)):
            axes.set_title(f"off by {error[row]:.3g}{_suffix(dim)}", fontsize=8, loc="right", parse_math=False, pad=2)
        grid[0, column].set_title(trace.episode, fontsize=10, loc="left", parse_math=False)
        grid[-1, column].set_xlabel("time [s]")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
    figure.suptitle(_title(report), fontsize=11, parse_math=False)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")


def _draw(axes: Axes, trace: Trace, dim: int, report: OpenLoopReport) -> None:
    """One dimension of one episode, with a faint line wherever the executor looks again."""
    times_s = np.arange(len(trace.demonstrated)) / report.rate_hz
    for look_s in times_s[:: report.n_action_steps]:
        axes.axvline(look_s, color=_LOOK, linewidth=0.6, zorder=0)
    axes.plot(times_s, trace.demonstrated[:, dim], color=_DEMONSTRATED, linewidth=2.2, label="demonstrated")
    looking = f"the policy, looking every {report.n_action_steps} steps"
    axes.plot(times_s, trace.sent[:, dim], color=_SENT, linewidth=1.1, label=looking)
    axes.tick_params(labelsize=8)
    axes.margins(x=0)


def _name(axes: Axes, dim: ActionName) -> None:
    axes.set_ylabel(f"{dim.name}\n[{dim.unit}]", fontsize=9, parse_math=False)


def _suffix(dim: ActionName) -> str:
    """The unit after a number; a fraction has none."""
    return "" if dim.unit == "1" else f" {dim.unit}"


def _title(report: OpenLoopReport) -> str:
    best = min(report.yardsticks, key=lambda yardstick: report.yardsticks[yardstick].l1)
    lines = [
        f"{report.skill}, run {report.run_id} ({report.checkpoint}): open-loop L1 {report.policy.l1:.3f} "
        f"standard deviations over {report.horizon} steps; "
        f"best yardstick ({best.replace('_', ' ')}) {report.yardsticks[best].l1:.3f}"
    ]
    if len(report.traces) > _EPISODES:
        lines.append(f"the first {_EPISODES} of {len(report.traces)} episodes; the error is over all of them")
    return "\n".join([*lines, *report.notes])
