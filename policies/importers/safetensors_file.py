"""Reading `.safetensors` files: names, shapes and bytes of tensors, nothing that could be run."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from policies.importers.imported import PolicyImportError
from policies.importers.torch_file import owned
from policies.normalize import error_line


def read_safetensors(path: Path, what: str) -> dict[str, Tensor]:
    """The tensors of a file by name, on the CPU; float32 where they float.

    The library refuses offsets that overlap, leave gaps or leave the file before it gives memory to anything.

    Args:
        path: the file.
        what: it holds, for the error when it is missing: "the weights".

    Raises:
        PolicyImportError: it is missing or damaged.
    """
    if not path.is_file():
        raise PolicyImportError(
            f"{path} is missing: {what} are not here. Download {path.name} from where {path.parent.name} came from."
        )
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return {name: owned(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118 - it is no dict
    except (SafetensorError, OSError, ValueError, RuntimeError, MemoryError) as error:
        raise PolicyImportError(
            f"{path} is cut short, damaged, or no safetensors file ({error_line(error)}). Download it again."
        ) from error
