"""The policy process: what runs on the other side of `policies.process.ProcessRunner`."""

from __future__ import annotations

import contextlib
import os
import pickle
import select
import signal
import threading
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, NoReturn

from foundation.errors import BtruntimeError
from policies.runner import Policy, PolicyError, checked_actions, report_of
from policies.shared_arrays import Layout, SharedArrays
from policies.spec import InputSpec, PolicyInput

_PARENT_CHECK_MS = 1000


@dataclass(frozen=True, slots=True)
class Start:
    """To the policy process, once: the pickled factory, the spec that is expected of its policy, its niceness."""

    factory: bytes
    spec: str
    niceness: int


@dataclass(frozen=True, slots=True)
class Predict:
    """To the policy process: an observation of run `run` lies in memory, which is now its own."""

    run: int
    oldest_capture_s: float
    layout: Layout


@dataclass(frozen=True, slots=True)
class Ready:
    """From the policy process: the policy is loaded, and what it reports of itself."""

    report: str | None = None


@dataclass(frozen=True, slots=True)
class Finished:
    """From the policy process: actions lie in memory, which is the control process's again."""

    run: int
    oldest_capture_s: float


@dataclass(frozen=True, slots=True)
class Failed:
    """From the policy process: it ends, and why."""

    reason: str


def main(socket: int, memory: int, parent: int) -> NoReturn:
    """Serve until the other side is gone.

    Args:
        socket: descriptor of the connection.
        memory: descriptor of the shared memory.
        parent: process id of the other side.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, args=(socket, parent), name="parent", daemon=True).start()
    peer = _Peer(Connection(socket))
    try:
        _serve(peer, memory)
    except _HungUpError:
        os._exit(0)
    except BtruntimeError as error:
        reason = str(error)
    except Exception as error:  # noqa: BLE001 - the other side must hear of anything that ends this one
        traceback.print_exc()
        reason = f"The policy failed with {type(error).__name__}: {error}."
    with contextlib.suppress(_HungUpError):
        peer.send(Failed(reason))
    os._exit(1)


class _HungUpError(Exception):
    """The control process is gone."""


class _Peer:
    """The connection; tells its own end from an end of file that a policy runs into."""

    def __init__(self, connection: Connection):
        self._connection = connection

    def send(self, message: object) -> None:
        try:
            self._connection.send(message)
        except OSError as error:
            raise _HungUpError from error

    def receive(self) -> Any:
        try:
            return self._connection.recv()
        except (EOFError, OSError) as error:
            raise _HungUpError from error


def _serve(peer: _Peer, memory: int) -> NoReturn:
    start: Start = peer.receive()
    os.nice(start.niceness)
    policy: Policy = pickle.loads(start.factory)()
    spec = InputSpec.model_validate_json(start.spec)
    if policy.spec != spec:
        raise PolicyError(f"the policy that was loaded is not the one that was announced: {_difference(spec, policy)}.")
    peer.send(Ready(report_of(policy)))
    arrays: SharedArrays | None = None
    run = 0
    while True:
        job: Predict = peer.receive()
        if arrays is None or arrays.layout != job.layout:
            arrays = SharedArrays(memory, job.layout)
        if job.run != run:
            policy.reset()
            run = job.run
        inputs = PolicyInput(arrays.state, arrays.frames, job.oldest_capture_s)
        arrays.actions[:] = checked_actions(policy.predict(inputs), spec)
        peer.send(Finished(job.run, job.oldest_capture_s))


def _difference(expected: InputSpec, policy: Policy) -> str:
    names = [name for name in InputSpec.model_fields if getattr(expected, name) != getattr(policy.spec, name)]
    name = names[0]
    return f"{name} is {getattr(policy.spec, name)}, expected {getattr(expected, name)}"


def _end_with_parent(socket: int, parent: int) -> NoReturn:
    """Exit when the other side hangs up or is gone, also in the middle of loading or of a forward pass."""
    poller = select.poll()
    poller.register(socket, 0)  # a hang-up is always reported
    # A process that the parent forked may hold its end of the socket open, hence the look at the parent itself.
    while os.getppid() == parent:
        if any(event & (select.POLLHUP | select.POLLERR) for _, event in poller.poll(_PARENT_CHECK_MS)):
            break
    os._exit(0)
