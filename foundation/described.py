"""Files in which a person says what a program cannot find out, in JSON or YAML, and what is wrong with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from foundation.errors import BtruntimeError

Model = TypeVar("Model", bound=BaseModel)

_MAX_BYTES = 1 << 20
_SHOWN_CHARACTERS = 80


def read_described(path: Path, model: type[Model], error: type[BtruntimeError], *, example: str = "") -> Model:
    """What the file says, checked.

    Args:
        path: JSON where it is called `.json`, else YAML.
        model: what it may say.
        error: what to raise.
        example: shown to whoever wrote something else.

    Raises:
        BtruntimeError: as `error`: it cannot be read, is larger than 1 MiB, or says something that the model refuses.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
        if len(content) > _MAX_BYTES:
            raise error(f"{path}: larger than {_MAX_BYTES >> 10} KiB, which no such file should be.")
        found: Any = json.loads(content) if path.suffix == ".json" else yaml.safe_load(content)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as cause:
        raise error(f"{path}: cannot be read as JSON or YAML: {cause}.") from cause
    try:
        return model.model_validate(found)
    except ValidationError as cause:
        fields = ", ".join(model.model_fields) + (f"; for example {example}" if example else "")
        raise error(f"{path}: {first_problem(cause)}. Fields: {fields}.") from cause


def first_problem(error: ValidationError) -> str:
    """Field, what was found and what is wrong with it, for the first thing that pydantic found."""
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"]) or "the whole"
    found = repr(first["input"])
    shown = found if len(found) <= _SHOWN_CHARACTERS else found[: _SHOWN_CHARACTERS - 3] + "..."
    return f"{where} is {shown}: {first['msg']}"
