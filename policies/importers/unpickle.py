"""Reading pickles of numpy arrays without running anything that stands in them.

A pickle is a program for a stack machine, which may name functions and call them. This is such a machine, with the
instructions that arrays in dicts need. The functions it may name are numpy's that make an array out of bytes, and
what they do is done by functions of ours, which check sizes first: an array is as large as the bytes that the file
holds for it, and no index into the machine's memory makes that grow.
"""

from __future__ import annotations

import math
import pickletools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policies.importers.imported import PolicyImportError

MAX_BYTES = 64 << 20
"""Far above any statistics file; a longer one is refused unread."""

_MAX_DIMENSIONS = 8
_LONGEST_CODE = 8
_KINDS = "fiub"
_MARK = object()


def load_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a pickled dict by name, single numbers too; what else stands in it is left out.

    Raises:
        PolicyImportError: the file is too large, damaged, no pickled dict, or names anything but numpy's arrays.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise PolicyImportError(f"{path} cannot be read: {error.strerror}.") from error
    if len(content) > MAX_BYTES:
        raise PolicyImportError(f"{path} is larger than {MAX_BYTES >> 20} MiB, which no statistics file should be.")
    try:
        found = _Machine().run(content)
    except PolicyImportError as error:
        raise PolicyImportError(f"{path}: {error}") from error
    except (ValueError, TypeError, IndexError, KeyError, OverflowError) as error:
        said = (str(error).splitlines() or [""])[0][:200]
        raise PolicyImportError(
            f"{path} is damaged or no pickle of arrays ({type(error).__name__}: {said}). Download it again."
        ) from error
    if not isinstance(found, dict):
        raise PolicyImportError(f"{path} holds a {_kind(found)}, expected a dict of arrays.")
    arrays = {name: _finished(value, name) for name, value in found.items()}
    return {name: array for name, array in arrays.items() if array is not None}


class _Machine:
    """Runs one pickle. Containers nest as deep as they like: nothing here walks through them."""

    def __init__(self) -> None:
        self._stack: list[Any] = []
        self._memory: dict[int, Any] = {}

    def run(self, content: bytes) -> Any:
        """What is on the stack at the end."""
        for opcode, argument, _ in pickletools.genops(content):
            name = opcode.name
            if name == "STOP":
                return self._stack.pop()
            if name in _IGNORED:
                continue
            if name in _CONSTANTS:
                self._stack.append(_CONSTANTS[name]())
            elif name in _LITERALS:
                self._stack.append(argument)
            elif (step := getattr(self, f"_{name.lower()}", None)) is not None:
                step(argument)
            else:
                raise PolicyImportError(
                    f"the pickle holds the instruction {name}, expected numpy arrays only. It was not run. Ask whoever "
                    f"made it for a file of plain arrays."
                )
        raise ValueError("it ends in the middle")

    def _since_mark(self) -> list[Any]:
        above = []
        while (value := self._stack.pop()) is not _MARK:
            above.append(value)
        return above[::-1]

    def _mark(self, _: object) -> None:
        self._stack.append(_MARK)

    def _memoize(self, _: object) -> None:
        self._memory[len(self._memory)] = self._stack[-1]

    def _binput(self, index: int) -> None:
        self._memory[index] = self._stack[-1]

    _put = _long_binput = _binput

    def _binget(self, index: int) -> None:
        self._stack.append(self._memory[index])

    _get = _long_binget = _binget

    def _tuple(self, _: object) -> None:
        self._stack.append(tuple(self._since_mark()))

    def _tuple1(self, _: object) -> None:
        self._stack[-1:] = [(self._stack[-1],)]

    def _tuple2(self, _: object) -> None:
        self._stack[-2:] = [(self._stack[-2], self._stack[-1])]

    def _tuple3(self, _: object) -> None:
        self._stack[-3:] = [(self._stack[-3], self._stack[-2], self._stack[-1])]

    def _append(self, _: object) -> None:
        value = self._stack.pop()
        self._container(list).append(value)

    def _appends(self, _: object) -> None:
        values = self._since_mark()
        self._container(list).extend(values)

    def _setitem(self, _: object) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._set(key, value)

    def _setitems(self, _: object) -> None:
        values = self._since_mark()
        for key, value in zip(values[::2], values[1::2], strict=True):
            self._set(key, value)

    def _set(self, key: Any, value: Any) -> None:
        if not isinstance(key, str):
            raise PolicyImportError(f"the pickle has a dict with a {_kind(key)} as key, expected names.")
        self._container(dict)[key] = value

    def _container(self, kind: type) -> Any:
        if not isinstance(self._stack[-1], kind):
            raise ValueError(f"a {_kind(self._stack[-1])} where a {kind.__name__} should be")
        return self._stack[-1]

    def _global(self, names: str) -> None:
        self._stack.append(_function(*names.split(" ", 1)))

    def _stack_global(self, _: object) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        if not isinstance(module, str) or not isinstance(name, str):
            raise ValueError("a name that is no text")
        self._stack.append(_function(module, name))

    def _reduce(self, _: object) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        if function not in _FUNCTIONS.values() or not isinstance(arguments, tuple):
            raise ValueError("a call of what is no function")
        self._stack.append(function(*arguments))

    def _build(self, _: object) -> None:
        state, target = self._stack.pop(), self._stack[-1]
        if not isinstance(target, _Array | _Dtype):
            raise PolicyImportError(f"the pickle sets attributes of a {_kind(target)}, expected numpy arrays only.")
        target.build(state)


class _Dtype:
    """A number's type as a pickle builds it: its code, then its byte order."""

    def __init__(self, code: object, align: object = False, copy: object = False):
        if not isinstance(code, str) or len(code) > _LONGEST_CODE or not code.isascii() or not code.isalnum():
            raise PolicyImportError("the pickle has an array of something else than plain numbers.")
        dtype = np.dtype(code)
        if dtype.kind not in _KINDS:
            raise PolicyImportError(f"the pickle has an array of {code}, expected plain numbers.")
        self.dtype = dtype

    def build(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) < 5 or any(part is not None for part in state[2:5]):
            raise PolicyImportError("the pickle has an array of something else than plain numbers.")
        order = state[1]
        if not isinstance(order, str) or order not in ("<", ">", "=", "|"):
            raise ValueError("a byte order that does not exist")
        self.dtype = self.dtype.newbyteorder(order)  # type: ignore[arg-type]


class _Array:
    """An array as a pickle builds it: empty, then with shape, type and bytes."""

    array: NDArray[Any] | None = None

    def build(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise ValueError("an array without shape, type and bytes")
        _, shape, kind, is_fortran, content = state
        self.array = _array(shape, kind, content, fortran=is_fortran is True)


def _ndarray(*_: object) -> None:
    """Only ever named, as what `_reconstruct` is to make."""
    raise ValueError("a call of what is no function")


def _reconstruct(*_: object) -> _Array:
    return _Array()


def _scalar(kind: object, content: object) -> _Array:
    made = _Array()
    made.array = _array((), kind, content, fortran=False)
    return made


def _frombuffer(content: object, kind: object, shape: object, order: object = "C") -> _Array:
    """How protocol 5 holds an array."""
    made = _Array()
    made.array = _array(shape, kind, content, fortran=order == "F")
    return made


def _encode(text: object, encoding: object) -> bytes:
    """How Python 3 writes bytes in protocol 2."""
    if not isinstance(text, str) or encoding != "latin1":
        raise ValueError("bytes in an encoding other than latin1")
    return text.encode("latin1")


def _array(shape: object, kind: object, content: object, *, fortran: bool) -> NDArray[Any]:
    if not isinstance(kind, _Dtype) or not isinstance(content, bytes | bytearray):
        raise PolicyImportError("the pickle has an array of something else than plain numbers.")
    if (
        not isinstance(shape, tuple)
        or len(shape) > _MAX_DIMENSIONS
        or not all(isinstance(size, int) and 0 <= size <= MAX_BYTES for size in shape)
    ):
        raise ValueError("an array of a shape that cannot be")
    needed = math.prod(shape) * kind.dtype.itemsize
    if needed != len(content):
        raise PolicyImportError(
            f"the pickle has an array of shape {shape}, which needs {needed} bytes; it holds {len(content)}."
        )
    return np.frombuffer(bytes(content), dtype=kind.dtype).reshape(shape, order="F" if fortran else "C")


def _finished(value: object, name: str) -> NDArray[Any] | None:
    if isinstance(value, bool | int | float):
        return np.asarray(float(value))
    if not isinstance(value, _Array):
        return None
    if value.array is None:
        raise PolicyImportError(f"the pickle has {name} without content.")
    return value.array


def _function(module: str, name: str) -> Callable[..., Any]:
    """What a pickle names; in numpy 1 it is called `core`, in numpy 2 `_core`."""
    known = _FUNCTIONS.get((module.replace("numpy._core.", "numpy.core."), name))
    if known is None:
        raise PolicyImportError(
            f"the pickle asks for {module[:100]}.{name[:100]}, expected numpy arrays only: it would run code. It was "
            f"not run. Ask whoever made it for a file of plain arrays."
        )
    return known


def _kind(value: object) -> str:
    return type(value).__name__


_FUNCTIONS: Mapping[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "ndarray"): _ndarray,
    ("numpy", "dtype"): _Dtype,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy.core.numeric", "_frombuffer"): _frombuffer,
    ("_codecs", "encode"): _encode,
}
_IGNORED = frozenset({"PROTO", "FRAME"})
_CONSTANTS: Mapping[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
}
_LITERALS = frozenset(
    {
        *("BININT", "BININT1", "BININT2", "INT", "LONG", "LONG1", "FLOAT", "BINFLOAT"),
        *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "SHORT_BINSTRING", "BINSTRING"),
        *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    }
)
