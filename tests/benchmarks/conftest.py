from __future__ import annotations

import sys
from pathlib import Path

# Programs, not a package; the bench of the skills' tests has the robot.
sys.path += [str(Path(__file__).parents[2] / "benchmarks"), str(Path(__file__).parents[1] / "skills")]
