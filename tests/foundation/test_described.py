from __future__ import annotations

import pytest
from pydantic import BaseModel, ConfigDict

from foundation.described import read_described
from foundation.errors import BtruntimeError


class Arm(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str
    joints: int = 6


class ArmError(BtruntimeError):
    pass


@pytest.mark.parametrize(("file", "content"), [("arm.json", '{"name": "so101"}'), ("arm.yaml", "name: so101\n")])
def test_json_and_yaml_say_the_same(tmp_path, file, content):
    (tmp_path / file).write_text(content)
    assert read_described(tmp_path / file, Arm, ArmError) == Arm(name="so101")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("name: [", "cannot be read as JSON or YAML"),
        ("name: so101\njoints: many\n", r"joints is 'many': .*\. Fields: name, joints; for example name: so101\."),
        ("name: so101\nlegs: 4\n", "legs is 4: Extra inputs"),
        ("", "the whole is None"),
        ("x" * ((1 << 20) + 1), "larger than 1024 KiB"),
    ],
)
def test_anything_else_is_refused_with_file_and_field(tmp_path, content, said):
    path = tmp_path / "arm.yaml"
    path.write_text(content)
    with pytest.raises(ArmError, match=said) as refused:
        read_described(path, Arm, ArmError, example="name: so101")
    assert str(path) in str(refused.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ArmError, match=r"arm\.json: cannot be read"):
        read_described(tmp_path / "arm.json", Arm, ArmError)
