from __future__ import annotations

import sys
from pathlib import Path

# `episode_bench` is shared with the tests of episodes.
sys.path.append(str(Path(__file__).parents[1] / "skills"))
