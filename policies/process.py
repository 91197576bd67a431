"""A policy in its own process, so that its forward passes do not disturb the control loop.

The policy process is niced, uses few threads, ignores Ctrl-C, and ends when its parent does. Observations and
actions go through shared memory, of which the two sides take turns; a socket carries the small messages.
"""

from __future__ import annotations

import functools
import json
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from socket import socketpair

from foundation.errors import BtruntimeError
from policies.chunk import Chunk
from policies.policy_process import Failed, Finished, Predict, Ready, Start
from policies.runner import Policy, checked_speed, timed
from policies.shared_arrays import Layout, SharedArrays, reserve, unnamed_file
from policies.spec import InputSpec, PolicyInput, check_input

Factory = Callable[[], Policy]

_EXIT_WAIT_S = 1.0
_OVERDUE_S = 10.0
_LOG_TAIL = 4096
_AGAIN = "Run the skill again: its policy is loaded anew."
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OPENCV_FOR_THREADS_NUM")
# Threads that spin while they wait for each other take the cores from those they wait for: on two cores beside two busy
# programs a product took 8.0 ms instead of 1.7 ms.
_WAITING = {"OMP_WAIT_POLICY": "PASSIVE"}


# Not multiprocessing's spawn: that runs the program of the parent once more, which may be a script that moves a robot.
_PROGRAM = """
import json, sys
arguments = json.loads(sys.argv[1])
sys.path[:] = arguments["path"]
from policies.policy_process import main
main(arguments["socket"], arguments["memory"], arguments["parent"])
"""


class PolicyProcessError(BtruntimeError):
    """A policy process cannot be started."""


class ProcessRunner:
    """See `policies.runner.PolicyRunner`. For any threads; only `close` waits for the policy process.

    The policy is free again once `poll` or `offer` has seen its answer, so a loop that calls both each tick gives
    it an observation of that very tick.

    Args:
        factory: makes the policy, in the policy process. Picklable: a function of a module, or a
            `functools.partial` of one. Not of `__main__`, which the policy process does not run.
        spec: what the policy sees; the policy must have the same.
        speed: 1.0 plays the actions at the demonstrated speed.
        threads: for torch and the like; by default half the cores, at least one.
        niceness: added to that of this process.
        overdue_s: a forward pass that takes longer has hung; `error` says so.

    Raises:
        PolicyProcessError: the factory cannot be handed over, or the process cannot be started.
    """

    def __init__(
        self,
        factory: Factory,
        spec: InputSpec,
        *,
        speed: float = 1.0,
        threads: int | None = None,
        niceness: int = 5,
        overdue_s: float = _OVERDUE_S,
    ):
        self._lock = threading.Lock()
        self._spec = spec
        self._speed = checked_speed(speed)
        self._ready = False
        self._report: str | None = None
        self._ended: str | None = None
        self._hung_up = False
        self._closed = False
        self._run = 0
        self._busy = False
        self._busy_since_s = 0.0
        self._overdue_s = overdue_s
        self._finished: Chunk | None = None
        self._layout = Layout(spec.state_dim, (spec.chunk_size, spec.action_dim))
        self._arrays: SharedArrays | None = None
        start = Start(_pickled(factory), spec.model_dump_json(), niceness)
        self._launch(start, threads or max(1, (os.cpu_count() or 1) // 2))

    @property
    def spec(self) -> InputSpec:
        return self._spec

    @property
    def pid(self) -> int:
        """Process id of the policy process."""
        return self._process.pid

    @property
    def ready(self) -> bool:
        """True once the policy is loaded, and while its process lives."""
        with self._lock:
            self._receive()
            return self._ready and self._ended is None

    @property
    def error(self) -> str | None:
        """Why the policy process ended; None while it runs, and when `close` ended it."""
        with self._lock:
            self._receive()
            return self._ended

    @property
    def report(self) -> str | None:
        """What the policy told of itself when it was loaded; None before."""
        with self._lock:
            self._receive()
            return self._report

    def offer(self, inputs: PolicyInput, now_s: float) -> bool:
        """Copy the observation to the policy process, if it is loaded and free.

        Raises:
            PolicyInputError: the observation is not what the spec describes.
        """
        with self._lock:
            self._receive()
            if not self._ready or self._busy or self._hung_up or self._ended is not None or self._closed:
                return False
            check_input(self._spec, inputs)
            self._busy = self._hand_over(inputs)
            self._busy_since_s = time.monotonic()
            return self._busy

    def poll(self, now_s: float) -> Chunk | None:
        """The chunk that was finished since the last call; None if there is none."""
        with self._lock:
            self._receive()
            chunk, self._finished = self._finished, None
            return chunk

    def reset(self, *, speed: float | None = None) -> None:
        """See `PolicyRunner.reset`. A forward pass under way goes on, and its chunk is dropped."""
        with self._lock:
            if speed is not None:
                self._speed = checked_speed(speed)
            self._run += 1
            self._finished = None

    def close(self) -> None:
        """End the policy process and free its memory; waits for its end. Idempotent."""
        with self._lock:
            if self._closed:
                return
            self._receive()
            self._closed = True
            self._finished = self._arrays = None
            self._connection.close()
        try:
            self._process.wait(_EXIT_WAIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._memory.close()
        self._log.close()

    def _hand_over(self, inputs: PolicyInput) -> bool:
        """Copy the observation to shared memory and say so; False when the other side is gone."""
        try:
            arrays = self._arrays_for(inputs)
            arrays.write(inputs.state, inputs.images)
            self._connection.send(Predict(self._run, inputs.oldest_capture_s, arrays.layout))
        except ConnectionError:
            self._hung_up = True
            return False
        except OSError as error:
            self._ended = f"There is no memory to hand frames to the policy process: {error}. Close other programs."
            return False
        return True

    def _launch(self, start: Start, threads: int) -> None:
        ours, theirs = socketpair()
        self._memory = unnamed_file()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed in close()
        fds = (theirs.fileno(), self._memory.fileno())
        arguments = {"path": sys.path, "socket": fds[0], "memory": fds[1], "parent": os.getpid()}
        try:
            reserve(self._memory.fileno(), self._layout.size)
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _PROGRAM, json.dumps(arguments)],
                env={**_WAITING, **os.environ, **dict.fromkeys(_THREAD_VARIABLES, str(threads))},
                pass_fds=fds,
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                process_group=0,  # Ctrl-C in the terminal is for the control process
            )
        except OSError as error:
            ours.close()
            raise PolicyProcessError(f"the policy process cannot be started: {error}.") from error
        finally:
            theirs.close()
        self._connection = Connection(ours.detach())
        self._connection.send(start)

    def _receive(self) -> None:
        """Take in what the policy process has said; never waits."""
        if self._ended is not None or self._closed:
            return
        try:
            while not self._hung_up and self._connection.poll(0):
                self._take(self._connection.recv())
        except (EOFError, OSError, pickle.UnpicklingError):
            self._hung_up = True
        # Its last words come before the exit code, and the exit code a moment after it hung up.
        code = self._process.poll()
        if code is not None and self._ended is None and (self._hung_up or not self._connection.poll(0)):
            self._ended = f"The policy process {_how(code)}{self._last_words()}. {_AGAIN}"
        if self._busy and self._ended is None and time.monotonic() - self._busy_since_s > self._overdue_s:
            self._ended = f"The policy process gave no answer for {self._overdue_s:g} s and is taken for dead. {_AGAIN}"

    def _take(self, message: object) -> None:
        if isinstance(message, Ready):
            self._ready, self._report = True, message.report
        elif isinstance(message, Failed):
            self._ended = message.reason
        elif isinstance(message, Finished):
            self._busy = False
            # One of a run before the last reset: what it was made for is over.
            if message.run == self._run and self._arrays is not None:
                actions = self._arrays.actions
                self._finished = timed(actions, self._spec, origin_s=message.oldest_capture_s, speed=self._speed)

    def _last_words(self) -> str:
        """The last line of what it printed, where a crash says what it was."""
        size = os.fstat(self._log.fileno()).st_size
        tail = os.pread(self._log.fileno(), _LOG_TAIL, max(0, size - _LOG_TAIL))
        lines = [line.strip() for line in tail.decode(errors="replace").splitlines() if line.strip()]
        return f": {lines[-1].rstrip('.')}" if lines else ""

    def _arrays_for(self, inputs: PolicyInput) -> SharedArrays:
        """The shared arrays, remade when the frames come in another size than before."""
        sizes = [(camera, *inputs.images[camera].shape[:2]) for camera in self._spec.camera_names]
        layout = Layout(self._layout.state_dim, self._layout.action_shape, tuple(sizes))
        if self._arrays is None or self._arrays.layout != layout:
            reserve(self._memory.fileno(), layout.size)
            self._arrays = SharedArrays(self._memory.fileno(), layout)
        return self._arrays


def _how(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
    hint = " (out of memory?)" if -code == signal.SIGKILL else ""
    return f"was killed by {name}{hint}"


def _pickled(factory: Factory) -> bytes:
    inner = factory
    while isinstance(inner, functools.partial):
        inner = inner.func
    if getattr(inner, "__module__", None) == "__main__":
        raise PolicyProcessError(
            f"the policy factory {inner!r} is defined in the program that was started. Move it into a module."
        )
    try:
        return pickle.dumps(factory)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise PolicyProcessError(
            f"the policy factory {factory!r} cannot be handed to another process ({error}). "
            f"Use a function of a module, or a functools.partial of one."
        ) from error
