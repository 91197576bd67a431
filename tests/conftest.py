"""What holds for every test."""

from __future__ import annotations

import signal

# Whoever runs the tests under nohup has the kernel ignore SIGHUP, in every process that a test starts, too.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
