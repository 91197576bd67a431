"""The trainer's process as its parent sees it: signals at bad moments."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from btruntime.training.local import TrainingStoppedError, train_locally

_SLEEPS = [sys.executable, "-c", "import time; time.sleep(600)"]


def _instead(monkeypatch: pytest.MonkeyPatch, command: list[str], *, number: int | None = None) -> list[int]:
    """Start this in place of the trainer, and be sent a signal while it starts; the process ids of what was started."""
    started: list[int] = []
    popen = subprocess.Popen

    def start(_: list[str], **options: Any) -> subprocess.Popen[str]:
        process = popen(command, **options)
        started.append(process.pid)
        if number is not None:
            signal.raise_signal(number)
        return process

    monkeypatch.setattr("btruntime.training.local.subprocess.Popen", start)
    return started


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_the_trainer_starts_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    before = signal.getsignal(number)
    if before is signal.SIG_IGN:
        pytest.skip("this signal is ignored here")
    started = _instead(monkeypatch, _SLEEPS, number=number)
    with pytest.raises(TrainingStoppedError) as stopped:
        train_locally(tmp_path, "1")
    with pytest.raises(ProcessLookupError):
        os.kill(started[0], 0)
    assert stopped.value.signal_number == number
    assert str(stopped.value) == "training was stopped before anything was saved. Start it again."
    assert signal.getsignal(number) is before


def test_a_signal_that_is_ignored_stays_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        _instead(monkeypatch, [sys.executable, "-c", "pass"], number=signal.SIGHUP)
        assert train_locally(tmp_path, "1") == tmp_path / "1"
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
