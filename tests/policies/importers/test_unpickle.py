from __future__ import annotations

import collections
import os
import pickle
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from policies.importers import PolicyImportError
from policies.importers.unpickle import MAX_BYTES, load_arrays

ARRAYS: dict[str, Any] = {
    "a": np.arange(6, dtype=np.float32),
    "b": np.arange(6, dtype=np.float64).reshape(2, 3),
    "c": np.asfortranarray(np.arange(6, dtype=">i4").reshape(2, 3)),
    "d": np.float32(1.5),
    "e": np.array([True, False]),
    "f": 2.5,
}


@pytest.mark.parametrize("protocol", range(1, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("module", [b"numpy._core", b"numpy.core"])
def test_arrays_come_back(tmp_path: Path, protocol: int, module: bytes) -> None:
    content = pickle.dumps({**ARRAYS, "text": "x", "list": [1, (2, None)]}, protocol=protocol)
    if protocol < 4:  # in later ones a length stands before the name
        content = content.replace(b"numpy._core", module)
    (tmp_path / "x.pkl").write_bytes(content)
    found = load_arrays(tmp_path / "x.pkl")
    assert set(found) == set(ARRAYS)
    for name, value in ARRAYS.items():
        assert np.array_equal(found[name], value)


class _Runs:
    def __init__(self, function: Any, *arguments: Any):
        self._call = function, arguments

    def __reduce__(self) -> Any:
        return self._call


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (_Runs(os.system, "touch ran"), r"asks for (posix|nt)\.system"),
        (_Runs(Path.touch, Path("ran")), "pathlib"),
        (_Runs(eval, "open('ran', 'w')"), r"builtins\.eval"),
        (_Runs(np.load, "x"), r"asks for numpy\.load"),
        (_Runs(np.zeros, 10**12), "asks for numpy"),
        (collections.OrderedDict(a=1), r"collections\.OrderedDict"),
        ({"a": np.array([{"b": 1}], dtype=object)}, "plain numbers"),
        ({"a": np.array([("x", 1)], dtype=[("n", "U1"), ("v", int)])}, "plain numbers"),
        ({"a": {1, 2}}, "EMPTY_SET"),
        ({1: np.zeros(1)}, "a int as key"),
        ([np.zeros(1)], "holds a list"),
    ],
)
def test_anything_else_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: Any, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(value))
    with pytest.raises(PolicyImportError, match=said):
        load_arrays(tmp_path / "x.pkl")
    assert [path.name for path in tmp_path.iterdir()] == ["x.pkl"]


def _array(shape: bytes, content: bytes = b"\0" * 4) -> bytes:
    return (
        b"\x80\x02}X\x01\0\0\0acnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85C\x01b\x87R(K\x01"
        + shape
        + b"cnumpy\ndtype\nX\x02\0\0\0f4\x89\x88\x87R(K\x03X\x01\0\0\0<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb\x89C"
        + bytes([len(content)])
        + content
        + b"tbs."
    )


def test_the_crafted_array_is_one_when_its_shape_is_right(tmp_path: Path) -> None:
    (tmp_path / "x.pkl").write_bytes(_array(b"K\x01\x85"))
    assert load_arrays(tmp_path / "x.pkl")["a"].tolist() == [0]


@pytest.mark.parametrize(
    "content",
    [
        _array(b"J\xff\xff\xff\x7f\x85"),  # two thousand million numbers
        _array(b"J\xff\xff\xff\xff\x85"),  # -1
        _array(b"K\x02\x85"),
        b"\x80\x02]r\xff\xff\xff\xff.",  # a place in the memory, 4e9 places away
        b"\x80\x02B\xff\xff\xff\xff.",  # four GB of bytes that do not follow
        b"\x80\x04\x8e" + struct.pack("<Q", 1 << 62) + b".",
        b"\x80\x05\x96" + struct.pack("<Q", 1 << 40) + b".",
        b"\x80\x02}(" * 10_000,
        b"\x80\x02]" + b"q\0(" + b"h\0" * 1000 + b"e" + b"0.",
        b"\x80\x02))" + b"2\x86" * 60 + b"}.",
        b"",
        b".",
        b"\x80\x02N.",
        b"\x80\x02}}}s.",
        b"\x80\x02Ptoken\n.",
    ],
)
def test_claims_cost_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.pkl").write_bytes(content)
    with pytest.raises(PolicyImportError, match=r"x\.pkl"):
        load_arrays(tmp_path / "x.pkl")


def test_a_large_file_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "x.pkl").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(PolicyImportError, match="larger than 64 MiB"):
        load_arrays(tmp_path / "x.pkl")
    with pytest.raises(PolicyImportError, match="cannot be read"):
        load_arrays(tmp_path)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_files_are_refused_or_read(tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(pickle.dumps(ARRAYS, protocol=data.draw(st.sampled_from([0, 2, 4, 5]))))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    (tmp_path / "x.pkl").write_bytes(content[: data.draw(st.integers(0, len(content)))])
    found: Any = {}
    with suppress(PolicyImportError):
        found = load_arrays(tmp_path / "x.pkl")
    assert sum(array.nbytes for array in found.values()) < 10 * len(content)
