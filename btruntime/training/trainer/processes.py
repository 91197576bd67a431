"""The processes of one training: one, or as many as `torchrun` started, one per GPU."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import distributed

# Longer than preparing a large cache takes, during which all but one process wait.
_TIMEOUT = timedelta(hours=6)


@dataclass(frozen=True, slots=True)
class Processes:
    """This process's place among those that train together."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def first(self) -> bool:
        """True in the one process that reports and writes."""
        return self.rank == 0

    @property
    def share(self) -> slice:
        """This process's part of what all do together."""
        return slice(self.rank, None, self.size)

    def device(self, wanted: str) -> torch.device:
        """The device named in the configuration, one GPU per process."""
        if wanted == "auto":
            wanted = "cuda" if torch.cuda.is_available() else "cpu"
        return torch.device(f"cuda:{self.local_rank}" if wanted == "cuda" else wanted)

    def agree(self, mine: int) -> int:
        """The largest number that any process holds; all must call it at the same point."""
        if self.size == 1:
            return mine
        device = f"cuda:{self.local_rank}" if distributed.get_backend() == "nccl" else "cpu"
        number = torch.tensor(mine, device=device)
        distributed.all_reduce(number, distributed.ReduceOp.MAX)
        return int(number)


@contextmanager
def joined() -> Iterator[Processes]:
    """The processes that `torchrun` started, connected; this one alone without it."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Processes()
        return
    distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo", timeout=_TIMEOUT)
    try:
        yield Processes(distributed.get_rank(), size, int(os.environ.get("LOCAL_RANK", "0")))
    finally:
        distributed.destroy_process_group()
