"""Files that are cut short, made up, or made to harm: a sentence, nothing written, and no memory for mere claims."""

from __future__ import annotations

import json
import pickle
import resource
import shutil
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign_parts import DESCRIPTION, write_lerobot, write_original, write_reference
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from foundation.errors import BtruntimeError
from policies.importers import ImportOptions, install, recognise

FUZZED = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
MORE_BYTES = 256 << 20


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One good checkpoint of each program."""
    root = tmp_path_factory.mktemp("whole")
    write_reference(root / "reference")
    write_lerobot(root / "lerobot")
    write_original(root / "original")
    return root


@pytest.fixture
def skill(tmp_path: Path) -> Path:
    directory = tmp_path / "skill"
    directory.mkdir()
    return directory


def brought(path: Path, skill: Path) -> str:
    """What is said of it; empty where it was taken. Refused, it has left nothing behind."""
    before = _peak()
    try:
        directory = install(recognise(path).read(path, ImportOptions(DESCRIPTION)), skill, "1")
    except BtruntimeError as error:
        assert list(skill.iterdir()) == []
        return str(error)
    finally:
        assert _peak() - before < MORE_BYTES
    shutil.rmtree(directory)
    return ""


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


@pytest.mark.parametrize(
    "name",
    [
        "reference/act_policy_step_100.pth",
        "reference/dataset_stats.pt",
        "lerobot/config.json",
        "lerobot/model.safetensors",
        "lerobot/policy_preprocessor.json",
        "lerobot/stats_7.safetensors",
        "original/policy_best.ckpt",
        "original/dataset_stats.pkl",
    ],
)
@FUZZED
@given(data=st.data())
def test_damaged_files(whole: Path, tmp_path: Path, name: str, data: st.DataObject) -> None:
    copy, skill = tmp_path / "copy", tmp_path / "into"
    skill.mkdir(exist_ok=True)
    shutil.copytree(whole / Path(name).parent, copy / Path(name).parent, dirs_exist_ok=True)
    content = bytearray((copy / name).read_bytes())
    kind = data.draw(st.sampled_from(["cut", "changed", "made up", "empty"]))
    if kind == "cut":
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    elif kind == "changed":
        for _ in range(data.draw(st.integers(1, 8))):
            place = data.draw(st.one_of(st.integers(0, min(3000, len(content) - 1)), st.integers(0, len(content) - 1)))
            content[place] = data.draw(st.integers(0, 255))
    else:
        content = bytearray(data.draw(st.binary(max_size=300)) if kind == "made up" else b"")
    (copy / name).write_bytes(content)
    said = brought((copy / name).parent, skill)
    assert said or kind == "changed"


class _Runs:
    def __reduce__(self) -> Any:
        return Path.touch, (Path("ran"),)


@pytest.mark.parametrize("name", ["reference/act_policy_step_100.pth", "reference/dataset_stats.pt", "original/x.ckpt"])
@pytest.mark.parametrize("form", ["torch", "pickle"])
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_code_is_not_run(
    whole: Path, tmp_path: Path, skill: Path, monkeypatch: pytest.MonkeyPatch, name: str, form: str
) -> None:
    monkeypatch.chdir(tmp_path)
    copy = Path(shutil.copytree(whole, tmp_path / "copy"))
    if form == "torch":
        torch.save({"model.transformer.encoder.layers.0.x": torch.zeros(1), "run": _Runs()}, copy / name)
    else:
        (copy / name).write_bytes(pickle.dumps({"run": _Runs()}))
    path = copy / name if name.endswith(".ckpt") else (copy / name).parent
    assert Path(name).name in brought(path, skill)
    assert not list(tmp_path.rglob("ran"))


def test_an_archive_that_grows_is_not_unpacked(whole: Path, tmp_path: Path, skill: Path) -> None:
    grows = tmp_path / "act_policy_step_1.pth"
    with (
        zipfile.ZipFile(whole / "reference" / "act_policy_step_100.pth") as stored,
        zipfile.ZipFile(grows, "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for record in stored.namelist():
            content = stored.read(record)
            packed.writestr(record, content + bytes(300 << 20) if record.endswith("data/0") else content)
    assert grows.stat().st_size < 2 << 20
    assert "compressed records" in brought(grows, skill)


def test_records_that_share_their_bytes_are_refused(tmp_path: Path, skill: Path) -> None:
    path = tmp_path / "act_policy_step_1.pth"
    torch.save({"model.decoder.layers.0.x": torch.zeros(1000), "y": torch.zeros(1000)}, path)
    with zipfile.ZipFile(path, "a") as archive:
        claimed = next(record for record in archive.infolist() if record.filename.endswith("data/1"))
        claimed.file_size = claimed.compress_size = 1 << 40
        archive.writestr("more", b"")
    assert "claims to hold more" in brought(path, skill)


def test_a_tensor_that_repeats_itself_is_not_spread_out(tmp_path: Path, skill: Path) -> None:
    path = tmp_path / "act_policy_step_1.pth"
    torch.save({"model.decoder.layers.0.x": torch.zeros(1).expand(1 << 40)}, path)
    assert "claim more" in brought(path, skill)
    alike = torch.zeros(1 << 16)
    torch.save({f"model.decoder.layers.{number}.x": alike for number in range(10_000)}, path)
    assert "claim more" in brought(path, skill)


def test_statistics_that_repeat_themselves_are_not_spread_out(whole: Path, tmp_path: Path, skill: Path) -> None:
    copy = Path(shutil.copytree(whole / "reference", tmp_path / "copy"))
    large = torch.zeros(1).expand(1 << 40)
    torch.save({"observation.state": {"mean": large, "std": large}, "action": {}}, copy / "dataset_stats.pt")
    assert "claim more" in brought(copy, skill)


def test_a_tensor_beyond_its_record_is_refused(whole: Path, tmp_path: Path, skill: Path) -> None:
    path = tmp_path / "act_policy_step_1.pth"
    with (
        zipfile.ZipFile(whole / "reference" / "act_policy_step_100.pth") as stored,
        zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as changed,
    ):
        for record in stored.namelist():
            content = stored.read(record)
            changed.writestr(record, content[: len(content) // 2] if "/data/" in record else content)
    assert brought(path, skill)


def _header(tensors: dict[str, Any], length: int | None = None, data: bytes = b"\0" * 16) -> bytes:
    text = json.dumps(tensors).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def _tensor(shape: list[int], start: int, end: int) -> dict[str, Any]:
    return {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}


@pytest.mark.parametrize(
    "content",
    [
        _header({}, 1 << 63),
        _header({}, 1 << 40),
        _header({"a": _tensor([1 << 40], 0, 1 << 42)}),
        _header({"a": _tensor([4], 0, 16), "b": _tensor([4], 0, 16)}),
        _header({"a": _tensor([2], 0, 8), "b": _tensor([2], 4, 12)}),
        _header({"a": _tensor([2], 8, 16)}),
        _header({"a": _tensor([1 << 40], 0, 16)}),
        _header({"a": _tensor([-4], 0, 16)}),
        _header({"a": _tensor([4], 16, 0)}),
        _header({"a": _tensor([1 << 62, 1 << 62], 0, 16)}),
        _header({"a": {**_tensor([4], 0, 16), "dtype": "OBJECT"}}),
        struct.pack("<Q", 4) + b"[[[[" + bytes(16),
        struct.pack("<Q", 100_000) + b"[" * 100_000,
        b"\0" * 8,
        b"",
    ],
)
@pytest.mark.parametrize("name", ["model.safetensors", "stats_7.safetensors"])
def test_a_header_that_lies(whole: Path, tmp_path: Path, skill: Path, content: bytes, name: str) -> None:
    copy = Path(shutil.copytree(whole / "lerobot", tmp_path / "copy"))
    (copy / name).write_bytes(content)
    assert name in brought(copy, skill)


@pytest.mark.parametrize("text", ["[" * 200_000, '{"type": "act"' + " " * (5 << 20) + "}", "null", '{"type": 1e999}'])
def test_a_config_that_is_none(whole: Path, tmp_path: Path, skill: Path, text: str) -> None:
    copy = Path(shutil.copytree(whole / "lerobot", tmp_path / "copy"))
    (copy / "config.json").write_text(text)
    assert "config.json" in brought(copy, skill)


def test_what_is_no_checkpoint_is_told_what_would_be_one(tmp_path: Path, skill: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "empty").mkdir()
    torch.save({"fc.weight": torch.zeros(2)}, tmp_path / "other.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    for name in ("notes.txt", "empty", "other.pth"):
        assert "what can be imported" in brought(tmp_path / name, skill)
    assert "expected a dict of tensors" in brought(tmp_path / "list.pth", skill)
    assert "does not exist" in brought(tmp_path / "absent", skill)
