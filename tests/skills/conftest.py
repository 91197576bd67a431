from __future__ import annotations

import sys
from pathlib import Path

# `skill_bench` is shared with the tests of the runtime.
sys.path.append(str(Path(__file__).parent))
