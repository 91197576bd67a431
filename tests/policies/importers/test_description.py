from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from foreign_parts import DESCRIPTION

from policies.importers import load_description
from policies.importers.description import EXAMPLE, Description, DescriptionError


@pytest.mark.parametrize("suffix", ["json", "yaml"])
def test_json_and_yaml(tmp_path: Path, suffix: str) -> None:
    content = DESCRIPTION.model_dump(mode="json")
    text = json.dumps(content) if suffix == "json" else yaml.safe_dump(content)
    (tmp_path / f"x.{suffix}").write_text(text)
    assert load_description(tmp_path / f"x.{suffix}") == DESCRIPTION


def test_the_example_in_the_errors_is_one() -> None:
    assert Description.model_validate_json(EXAMPLE).joints == ("shoulder", "gripper")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"joint": ["a"]}, "joint is"),
        ({"joints": ["a", "a"]}, "two joints have the same name"),
        ({"joints": ["../a"]}, r"joints\.0"),
        ({"state_scale": 0}, "state_scale"),
        ({"state_scale": -1}, "state_scale"),
        ({"state_scale": [1.0, float("inf")]}, "state_scale"),
        ({"action": "everything"}, "action"),
        ({"action": [{"name": "a", "kind": "joint_position", "unit": "rad", "scale": 0}]}, "scale"),
        ({"cameras": [{"name": "a"}, {"name": "b", "source": "a"}]}, "two sources of cameras"),
        ({"cameras": [{"name": "a", "height": 0}]}, "height"),
        ({"grippers": ["a"]}, "grippers names a"),
        ({"data_frequency_hz": 0}, "data_frequency_hz"),
        ([], "the whole is"),
    ],
)
def test_what_cannot_be_is_named(tmp_path: Path, content: Any, said: str) -> None:
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(DescriptionError, match=said) as caught:
        load_description(tmp_path / "x.yaml")
    assert "x.yaml" in str(caught.value)


@pytest.mark.parametrize("content", [b"\xff\xfe\0", b"{", b"[" * 100_000, b"a" * (2 << 20), b"!!python/object:x {}"])
def test_what_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.json").write_bytes(content)
    (tmp_path / "x.yaml").write_bytes(content)
    for name in ("x.json", "x.yaml", "absent"):
        with pytest.raises(DescriptionError, match=name):
            load_description(tmp_path / name)
