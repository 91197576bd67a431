"""Demonstrations of a task by its scripted leader, on the simulated robot and the virtual clock.

They pass through the same recorder, gate and writer as a person's, and end up in the same files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path

from btruntime.record.config import RecorderConfig
from btruntime.record.recorder import Recorded, Recorder
from hal.sim.pick import PickTask
from hal.sim.stage import staged
from hal.types import RobotSpec

_SETTLE_S = 0.3


def record_demonstrations(
    task: PickTask,
    spec: RobotSpec,
    data_dir: Path,
    seeds: Iterable[int],
    config: RecorderConfig,
    *,
    software: str,
    progress: Callable[[int, Recorded | None], None] = lambda seed, recorded: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> list[Recorded]:
    """One episode per scene; those in which the leader failed go to the trash, as a person would do it.

    Args:
        task: scenes, leader and judge.
        spec: of the simulated robot.
        data_dir: the skill's `data/`.
        seeds: of the scenes.
        config: frequency and sizes.
        software: written into the episodes.
        progress: told each seed and its episode (None: trashed).
        cancelled: asked between steps; the episode at hand goes to the trash.

    Returns:
        The saved episodes, in order.
    """
    saved: list[Recorded] = []
    for seed in seeds:
        if cancelled():
            break
        recorded = _demonstration(task, spec, data_dir, seed, config, software, cancelled)
        if recorded is not None:
            saved.append(recorded)
        progress(seed, recorded)
    return saved


def _demonstration(
    task: PickTask,
    spec: RobotSpec,
    data_dir: Path,
    seed: int,
    config: RecorderConfig,
    software: str,
    cancelled: Callable[[], bool],
) -> Recorded | None:
    """One scene; None when its episode went to the trash."""
    with ExitStack() as stack:
        stage = stack.enter_context(staged(spec, task.scene(seed), task.perturbed_start(seed), seed=seed))
        stage.clock.sleep_until(_SETTLE_S)
        recorder = Recorder(stage.robot, stage.clock, stage.gate, data_dir, config, software=software, scene_seed=seed)
        stack.callback(recorder.close)
        recorder.record(task.leader(stage.robot, seed=seed), cancelled=cancelled)
        if task.succeeded(stage.robot) and not cancelled():
            return recorder.save()
        recorder.discard()
        return None
