from __future__ import annotations

import sys
from pathlib import Path

import pytest

# A policy process finds its policy by the path of this process: `tiny_policy` must be importable by name.
sys.path.append(str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
