"""Reading files of `torch.save` that somebody else made, with memory bounded by the size of the file.

Such a file is a zip archive of a pickle and of the bytes of each tensor. Torch's own restricted unpickler reads the
pickle; the archive is checked before and the tensors after, because both may claim more than is there.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from policies.checkpoint import plain_state_dict
from policies.importers.imported import PolicyImportError
from policies.normalize import error_line

_MAX_PICKLE_BYTES = 64 << 20
_LARGEST_SHARE = 2


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a state dict by name, unwrapped, without the prefixes of wrappers; float32 where they float.

    Raises:
        PolicyImportError: the file is damaged, no checkpoint, or claims more than it holds.
        CheckpointError: it holds something else than tensors.
    """
    tensors = plain_state_dict(read_content(path), str(path))
    return {name: owned(tensor) for name, tensor in tensors.items()}


def read_content(path: Path) -> Any:
    """What was saved, its tensors still in the file: copy them (`owned`) to keep them.

    Raises:
        PolicyImportError: see `read_tensors`.
    """
    _check_archive(path)
    try:
        # Mapped, not read: a tensor that claims more than the file holds is then refused by torch.
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # torch names no set of errors for a file that is not its own
        raise PolicyImportError(
            f"{path} is damaged or no checkpoint, or holds more than tensors ({error_line(error)}). It was not run. "
            f"Download it again, or ask whoever made it for its state dict alone."
        ) from error
    size, claimed = path.stat().st_size, 0
    for tensor in _tensors(content):
        claimed += tensor.numel() * tensor.element_size()
        if claimed > _LARGEST_SHARE * size:
            raise PolicyImportError(
                f"{path} has {size} bytes, and its tensors claim more than {claimed}. It is not what it seems; "
                f"download it again."
            )
    return content


def owned(tensor: Tensor) -> Tensor:
    """A copy that no longer depends on the file, float32 where it floats."""
    return tensor.detach().to(torch.float32 if tensor.is_floating_point() else tensor.dtype, copy=True).contiguous()


def _check_archive(path: Path) -> None:
    """Refuse what no `torch.save` writes: compressed or overlapping records."""
    try:
        size = path.stat().st_size
        if size == 0:
            raise PolicyImportError(f"{path} is empty. Download it again.")
        with zipfile.ZipFile(path) as archive:
            records = archive.infolist()
    except OSError as error:
        raise PolicyImportError(f"{path} cannot be read: {error.strerror or error}.") from error
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise PolicyImportError(
            f"{path} is cut short, damaged, or no file of torch.save ({error_line(error)}). Download it again; a file "
            f"of torch before 1.6 must be saved anew with a later one."
        ) from error
    if any(record.compress_type != zipfile.ZIP_STORED for record in records):
        raise PolicyImportError(f"{path} holds compressed records, which torch.save never writes. Download it again.")
    if sum(record.file_size for record in records) > size:
        raise PolicyImportError(f"{path} has {size} bytes and claims to hold more. Download it again.")
    if any(record.file_size > _MAX_PICKLE_BYTES for record in records if record.filename.endswith("data.pkl")):
        raise PolicyImportError(f"{path} has a list of contents that is too long to be one. Download it again.")


def _tensors(content: Any) -> Iterator[Tensor]:
    """All tensors in nested containers; a container that is there many times is walked through once."""
    waiting, seen = [content], set[int]()
    while waiting:
        found = waiting.pop()
        if isinstance(found, Tensor):
            yield found
        elif isinstance(found, Mapping | list | tuple) and id(found) not in seen:
            seen.add(id(found))
            waiting.extend(found.values() if isinstance(found, Mapping) else found)
