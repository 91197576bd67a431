"""Columns of a parquet file as arrays, read at bounded cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from btruntime.dataset.source import DatasetError
from hal.types import Array

_MAX_ROWS = 1_000_000
_MAX_COLUMN_BYTES = 1 << 30
_MAX_CELL_BYTES = 64 << 20
_BATCH = 8
_AGAIN = "Download or copy it again."


def arrow() -> Any:
    """The package pyarrow, with its parquet reader, loaded when the first file is read.

    Raises:
        DatasetError: it is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise DatasetError(
            "LeRobot datasets are parquet files, and pyarrow, which reads them, is not installed. "
            "Run: pip install pyarrow (what btruntime[lerobot] adds)."
        ) from error
    return pyarrow


def read_columns(path: Path, widths: Mapping[str, int | None]) -> dict[str, Array]:
    """Columns of numbers as float64.

    Args:
        path: the file.
        widths: by the column's name: how many numbers a row holds, or None for a single number.

    Returns:
        By column, (T, width), or (T,) where the width is None.

    Raises:
        DatasetError: no parquet file, damaged, or a column missing, of another type or width, or with holes.
    """
    with _opened(path) as file:
        for name, width in widths.items():
            _check_cost(path, file, name, _MAX_ROWS * (width or 1))
        table = file.read(columns=list(widths), use_threads=False)
        return {name: _numbers(path, table.column(name), name, width) for name, width in widths.items()}


def read_cells(path: Path, name: str) -> Iterator[bytes]:
    """The encoded pictures in a column of LeRobot's `image` type, one per row, a few in memory at a time.

    Raises:
        DatasetError: no parquet file, damaged, or the column holds no bytes.
    """
    with _opened(path) as file:
        _check_cost(path, file, f"{name}.bytes", _MAX_ROWS)
        row = 0
        for batch in file.iter_batches(batch_size=_BATCH, columns=[f"{name}.bytes"], use_threads=False):
            for cell in batch.column(0):
                found = cell.as_py()
                data = found.get("bytes") if isinstance(found, dict) else None
                if not isinstance(data, bytes) or len(data) > _MAX_CELL_BYTES:
                    raise DatasetError(
                        f"{path}: {name} of row {row} holds no picture, expected a PNG or JPEG. {_AGAIN}"
                    )
                yield data
                row += 1


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    pyarrow = arrow()
    try:
        with pyarrow.parquet.ParquetFile(path, memory_map=False, pre_buffer=False) as file:
            if not 0 < file.metadata.num_rows <= _MAX_ROWS:
                raise DatasetError(
                    f"{path}: {file.metadata.num_rows} rows, expected 1 to {_MAX_ROWS}, one per step. {_AGAIN}"
                )
            yield file
    # OverflowError and MemoryError: what a damaged footer claims can be any number.
    except (pyarrow.ArrowException, OSError, ValueError, KeyError, OverflowError, MemoryError) as error:
        raise DatasetError(f"{path}: cannot be read as parquet: {_first_line(error)}. {_AGAIN}") from error


def _check_cost(path: Path, file: Any, name: str, most_values: int) -> None:
    """Refuse a column that is not there, or that claims more than could be wanted of it."""
    meta = file.metadata
    values = size = 0
    found = False
    for group in range(meta.num_row_groups):
        for index in range(meta.num_columns):
            column = meta.row_group(group).column(index)
            if column.path_in_schema == name or column.path_in_schema.startswith(f"{name}."):
                found = True
                values += column.num_values
                size += column.total_uncompressed_size
    if not found:
        names = ", ".join(file.schema_arrow.names[:40])
        raise DatasetError(f"{path}: no column {name}; there is {names}. {_AGAIN}")
    if values > most_values or size > _MAX_COLUMN_BYTES:
        raise DatasetError(
            f"{path}: {name} claims {values} values of {size} bytes, expected at most {most_values} values and "
            f"{_MAX_COLUMN_BYTES >> 20} MiB. {_AGAIN}"
        )


def _numbers(path: Path, column: Any, name: str, width: int | None) -> Array:
    pyarrow = arrow()
    types, kind = pyarrow.types, column.type
    is_list = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
    element = kind.value_type if is_list else kind
    per_row = 1 if width is None else width
    # A feature of a single number is a column of numbers in some versions, of lists in others.
    if not (types.is_floating(element) or types.is_integer(element) or types.is_boolean(element)) or (
        not is_list and per_row != 1
    ):
        raise DatasetError(f"{path}: {name} is of type {kind}, expected {per_row} numbers per row. {_AGAIN}")
    rows = len(column)
    if column.null_count:
        raise DatasetError(f"{path}: {name} has {column.null_count} empty rows, expected numbers in all. {_AGAIN}")
    whole = pyarrow.concat_arrays(column.chunks)
    if is_list:
        lengths = np.diff(whole.offsets.to_numpy()) if not types.is_fixed_size_list(kind) else [kind.list_size]
        if wrong := sorted({int(each) for each in lengths} - {per_row}):
            raise DatasetError(f"{path}: {name} has rows of {wrong[0]} numbers, expected {per_row}. {_AGAIN}")
        whole = whole.flatten()
    if whole.null_count:
        raise DatasetError(f"{path}: {name} has {whole.null_count} empty values, expected numbers. {_AGAIN}")
    values: Array = whole.to_numpy(zero_copy_only=False).astype(np.float64)
    return values.reshape(rows) if width is None else values.reshape(rows, width)


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).strip().splitlines()[0].rstrip(".")
