from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))

from processes import Place, make_skill


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place with one trained skill, to be copied."""
    root = tmp_path_factory.mktemp("template")
    (root / "agents").mkdir()
    (root / "skills").mkdir()
    make_skill(root / "skills")
    return root


@pytest.fixture
def place(template: Path, tmp_path: Path) -> Place:
    """A trained skill that the test may break."""
    return Place(Path(shutil.copytree(template, tmp_path / "place")))
