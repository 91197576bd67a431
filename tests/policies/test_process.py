from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tiny_policy
from act_parts import CONFIG, network, statistics
from act_parts import SPEC as ACT_SPEC
from tiny_policy import SPEC, tiny_input

from policies.act.loading import load_act_policy
from policies.checkpoint import save
from policies.chunk import Chunk
from policies.process import PolicyProcessError, ProcessRunner
from policies.runner import InlineRunner, PolicyRunner
from policies.spec import InputSpec, PolicyInput, PolicyInputError

Start = Callable[..., ProcessRunner]


@pytest.fixture
def start() -> Iterator[Start]:
    runners = []

    def make(
        factory: Callable[[], object] = tiny_policy.make, spec: InputSpec = SPEC, **options: object
    ) -> ProcessRunner:
        runners.append(ProcessRunner(factory, spec, **options))  # type: ignore[arg-type]
        return runners[-1]

    yield make
    for runner in runners:
        runner.close()


def until(condition: Callable[[], object]) -> object:
    """Wait for it; a test that hangs here is ended by whoever runs it, not by a clock."""
    while not (found := condition()):
        time.sleep(0.001)
    return found


def loaded(runner: ProcessRunner) -> ProcessRunner:
    until(lambda: runner.ready or runner.error)
    assert runner.error is None
    return runner


def chunk_of(runner: PolicyRunner, inputs: PolicyInput) -> Chunk:
    until(lambda: runner.offer(inputs, 0.0))
    chunk = until(lambda: runner.poll(0.0) or runner.error)
    assert isinstance(chunk, Chunk)
    return chunk


def gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return True
    return state == "Z"


def test_chunks_are_those_of_the_policy(start: Start) -> None:
    runner = loaded(start(speed=2.0))
    chunk = chunk_of(runner, tiny_input(3.0, red=40, oldest_capture_s=5.0))
    assert chunk.times_s == pytest.approx(5 + np.arange(5) / 20)
    assert chunk.actions[:, 0].tolist() == [3, 4, 5, 6, 7]
    assert chunk.actions[0].tolist() == [3, 0, 40]
    assert runner.poll(0.0) is None
    assert chunk_of(runner, tiny_input(4.0, red=50)).actions[0].tolist() == [4, 0, 50]
    assert chunk.actions[0].tolist() == [3, 0, 40], "a chunk that was handed out changed"


def test_frames_may_change_their_size(start: Start) -> None:
    runner = loaded(start())
    for size in (4, 200, 3):
        assert chunk_of(runner, tiny_input(red=size, size=size)).actions[0, 2] == size


def test_nothing_waits_while_the_policy_loads(start: Start, tmp_path: Path) -> None:
    runner = start(functools.partial(tiny_policy.make_after, tmp_path / "go"))
    assert not runner.ready
    assert not runner.offer(tiny_input(), 0.0)
    assert runner.poll(0.0) is None
    assert runner.error is None
    (tmp_path / "go").touch()
    assert chunk_of(loaded(runner), tiny_input(8.0)).actions[0, 0] == 8.0


def test_observations_are_not_queued_while_the_policy_is_busy(start: Start, tmp_path: Path) -> None:
    runner = loaded(start(functools.partial(tiny_policy.make, tmp_path / "go")))
    assert runner.offer(tiny_input(1.0), 0.0)
    assert not any(runner.offer(tiny_input(2.0), 0.0) for _ in range(1000))
    assert runner.poll(0.0) is None
    (tmp_path / "go").touch()
    first = until(lambda: runner.poll(0.0))
    assert isinstance(first, Chunk)
    assert first.actions[0, 0] == 1.0
    assert chunk_of(runner, tiny_input(3.0)).actions[0, 0] == 3.0


def test_no_chunk_of_before_a_reset_comes_after_it(start: Start, tmp_path: Path) -> None:
    runner = loaded(start(functools.partial(tiny_policy.make, tmp_path / "go")))
    assert runner.offer(tiny_input(1.0), 0.0)
    runner.reset()
    (tmp_path / "go").touch()
    chunk = chunk_of(runner, tiny_input(2.0))
    assert chunk.actions[0].tolist() == [2, 1, 0], "of another run, or the policy was not reset"
    assert runner.offer(tiny_input(5.0), 0.0)
    until(lambda: runner._receive() or runner._finished)
    runner.reset(speed=2.0)
    assert runner.poll(0.0) is None
    assert chunk_of(runner, tiny_input(6.0)).end_s == pytest.approx(4 / 20)


def test_an_observation_that_does_not_fit_is_refused_here(start: Start) -> None:
    runner = loaded(start())
    with pytest.raises(PolicyInputError, match="'top'"):
        runner.offer(PolicyInput(np.zeros(2, np.float32), {}, 0.0), 0.0)
    assert runner.error is None
    assert chunk_of(runner, tiny_input(1.0)).actions[0, 0] == 1.0


@pytest.mark.parametrize(
    ("wish", "says"),
    [
        (-101.0, "The tiny policy does not go there."),
        (77.0, "EOFError: a file of the policy ended early"),
        (99.0, "exit code 3: the tiny policy gives up."),
        (55.0, "gave nan as action 0 of step 0"),
    ],
)
def test_the_end_of_the_policy_has_a_reason(start: Start, wish: float, says: str) -> None:
    runner = loaded(start())
    assert runner.offer(tiny_input(wish), 0.0)
    until(lambda: runner.error)
    assert says in str(runner.error)
    assert not runner.ready
    assert not runner.offer(tiny_input(), 0.0)
    assert runner.poll(0.0) is None


@pytest.mark.parametrize(
    ("factory", "says"),
    [
        (tiny_policy.make_broken, "tiny.pth is damaged. Download it again."),
        (tiny_policy.make_other, "joint_names is ('b', 'a'), expected ('a', 'b')"),
    ],
)
def test_a_policy_that_does_not_load_has_a_reason(start: Start, factory: Callable[[], object], says: str) -> None:
    runner = start(factory)
    until(lambda: runner.error)
    assert says in str(runner.error)


def test_a_killed_process_is_an_error_whenever_it_dies(start: Start, tmp_path: Path) -> None:
    while_loading = start(functools.partial(tiny_policy.make_after, tmp_path / "never"))
    idle = loaded(start())
    busy = loaded(start(functools.partial(tiny_policy.make, tmp_path / "never")))
    assert busy.offer(tiny_input(), 0.0)
    for runner in (while_loading, idle, busy):
        os.kill(runner.pid, signal.SIGKILL)
        until(lambda runner=runner: runner.error)
        assert "was killed by SIGKILL" in str(runner.error)
        assert not runner.offer(tiny_input(), 0.0)


def test_ctrl_c_is_not_for_the_policy_process(start: Start) -> None:
    runner = loaded(start())
    os.kill(runner.pid, signal.SIGINT)
    assert chunk_of(runner, tiny_input(1.0)).actions[0, 0] == 1.0
    assert os.getpgid(runner.pid) != os.getpgid(0)


def test_the_policy_process_is_nicer_and_has_few_threads(start: Start) -> None:
    runner = loaded(start(threads=1, niceness=3))
    assert os.getpriority(os.PRIO_PROCESS, runner.pid) == os.getpriority(os.PRIO_PROCESS, 0) + 3
    assert b"OMP_NUM_THREADS=1\0" in Path(f"/proc/{runner.pid}/environ").read_bytes()


@pytest.mark.parametrize("moment", ["loading", "idle", "busy", "stopped", "dead"])
def test_close_ends_the_process_at_any_moment_and_leaks_nothing(start: Start, tmp_path: Path, moment: str) -> None:
    before = len(os.listdir("/proc/self/fd"))
    slow = functools.partial(tiny_policy.make_after if moment == "loading" else tiny_policy.make, tmp_path / "never")
    runner = start(slow)
    if moment != "loading":
        loaded(runner)
    if moment == "busy":
        assert runner.offer(tiny_input(), 0.0)
    elif moment in ("stopped", "dead"):
        os.kill(runner.pid, signal.SIGSTOP if moment == "stopped" else signal.SIGKILL)
    runner.close()
    runner.close()
    assert gone(runner.pid)
    assert len(os.listdir("/proc/self/fd")) == before
    assert not runner.offer(tiny_input(), 0.0)
    assert runner.poll(0.0) is None


_ORPHAN = """
import functools, os, sys, time
from pathlib import Path
import tiny_policy
from policies.process import ProcessRunner
runner = ProcessRunner(functools.partial(tiny_policy.make, Path(sys.argv[1])), tiny_policy.SPEC)
while not runner.ready:
    time.sleep(0.001)
runner.offer(tiny_policy.tiny_input(), 0.0)
print(runner.pid, flush=True)
time.sleep(600)
"""


def test_a_forward_pass_that_never_ends_is_an_error(start: Start, tmp_path: Path) -> None:
    runner = loaded(start(functools.partial(tiny_policy.make, tmp_path / "never"), overdue_s=0.05))
    until(lambda: runner.offer(tiny_input(), 0.0))
    until(lambda: runner.error)
    assert "no answer for 0.05 s" in str(runner.error)


def test_a_policy_process_does_not_outlive_its_parent(tmp_path: Path) -> None:
    path = os.pathsep.join(entry for entry in sys.path if entry)
    with subprocess.Popen(
        [sys.executable, "-c", _ORPHAN, str(tmp_path / "never")],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert not gone(pid)
        parent.kill()
    until(lambda: gone(pid))


_CONTROL = """
import sys
import policies.process, policies.runner, policies.chunk, policies.manifest, policies.act.loading
print([name for name in ("torch", "cv2", "h5py") if name in sys.modules])
"""


def test_the_control_process_needs_no_torch() -> None:
    path = os.pathsep.join(entry for entry in sys.path if entry)
    done = subprocess.run(
        [sys.executable, "-c", _CONTROL], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_a_factory_that_no_other_process_can_find_is_refused() -> None:
    with pytest.raises(PolicyProcessError, match="cannot be handed"):
        ProcessRunner(lambda: tiny_policy.make(), SPEC)

    def program() -> None: ...

    program.__module__ = "__main__"
    with pytest.raises(PolicyProcessError, match="Move it into a module"):
        ProcessRunner(functools.partial(program), SPEC)  # type: ignore[arg-type]


def test_an_act_checkpoint_gives_the_same_in_a_process_and_inline(start: Start, tmp_path: Path) -> None:
    path = save(tmp_path, 1, network().state_dict(), statistics(), ACT_SPEC, CONFIG)
    frames = np.random.default_rng(0).integers(0, 256, (2, 48, 64, 3), dtype=np.uint8)
    inputs = PolicyInput(np.array([0.1, 0.2], np.float32), {"top": frames[0], "side": frames[1]}, 0.5)
    there = chunk_of(loaded(start(functools.partial(load_act_policy, path, "cpu"), ACT_SPEC)), inputs)
    here = chunk_of(InlineRunner(load_act_policy(path, "cpu")), inputs)
    assert there.actions == pytest.approx(here.actions, abs=1e-6)
    assert (there.times_s == here.times_s).all()


def test_a_policy_reports_its_engine_out_of_its_process(start: Start, tmp_path: Path) -> None:
    path = save(tmp_path, 1, network().state_dict(), statistics(), ACT_SPEC, CONFIG)
    eager = loaded(start(functools.partial(load_act_policy, path, "cpu", "eager"), ACT_SPEC))
    folded = loaded(start(functools.partial(load_act_policy, path, "cpu", "folded-f32"), ACT_SPEC))
    assert eager.report == "eager float32"
    assert folded.report is not None
    assert folded.report.startswith("folded float32, ")
    assert "error" in folded.report


def test_a_policy_without_a_report_tells_none(start: Start) -> None:
    assert loaded(start()).report is None


def test_an_engine_that_there_is_not_ends_the_process_with_the_names(start: Start, tmp_path: Path) -> None:
    path = save(tmp_path, 1, network().state_dict(), statistics(), ACT_SPEC, CONFIG)
    runner = start(functools.partial(load_act_policy, path, "cpu", "warp"), ACT_SPEC)
    reason = until(lambda: runner.error)
    assert "engine is 'warp', expected one of auto, eager" in str(reason)
