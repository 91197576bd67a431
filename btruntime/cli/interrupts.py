"""Being ended by a signal without a traceback, whatever the program is at."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interruption(KeyboardInterrupt):
    """A signal that nobody else takes; what was begun is undone on the way out."""

    def __init__(self, number: int):
        how = "interrupted" if number == signal.SIGINT else f"ended by {signal.Signals(number).name}"
        super().__init__(f"{how}.")
        self.number = number


@contextmanager
def interruptible(*, last: bool) -> Iterator[None]:
    """While the block runs, SIGINT, SIGTERM and SIGHUP raise `Interruption`; in the middle of an import they end the
    process, because what an import that is broken off prints is of use to nobody.

    Outside the main thread nothing is changed. A signal that is ignored stays so (`nohup`), and so does one that
    somebody else has a handler for.

    Args:
        last: nothing but the end of the process comes after the block: then the signals end it at once, where Python
            would show in which of its own threads or files it was.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    found = {number: signal.getsignal(number) for number in _SIGNALS}
    before = {number: found[number] for number in _SIGNALS if found[number] in _PYTHONS_OWN}
    for number in before:
        signal.signal(number, _interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if last else handler)


_PYTHONS_OWN = (signal.SIG_DFL, signal.default_int_handler)


def _interrupt(number: int, frame: FrameType | None) -> None:
    ended = Interruption(number)
    if _importing(frame):
        os.write(2, f"btruntime: {ended}\n".encode())
        os._exit(128 + number)
    raise ended


def _importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False
