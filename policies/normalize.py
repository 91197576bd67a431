"""Statistics of a dataset, and normalising with them.

The file form is the reference robot's `dataset_stats.pt`: a dict from feature to `mean` and `std`, where pictures
are in 0..1 and their statistics per channel, shaped (3, 1, 1).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foundation.errors import BtruntimeError
from foundation.files import replacing

STD_FLOOR = 1e-2
"""In the feature's unit. Without it a joint that never moved explodes at the first deviation."""

_EPS = 1e-8
_IMAGE = "observation.image_"
_STATE = "observation.state"
_ACTION = "action"


class StatisticsError(BtruntimeError):
    """Normalisation statistics are missing, malformed, or belong to something else."""


@dataclass(frozen=True, slots=True)
class MeanStd:
    """Mean and standard deviation of one feature: float32, of one shape, finite, std above 0."""

    mean: NDArray[np.float32]
    std: NDArray[np.float32]

    def __post_init__(self) -> None:
        mean, std = np.asarray(self.mean, dtype=np.float32), np.asarray(self.std, dtype=np.float32)
        if mean.shape != std.shape:
            raise StatisticsError(f"mean has shape {mean.shape}, std {std.shape}; expected the same.")
        if not np.isfinite(mean).all() or not np.isfinite(std).all():
            raise StatisticsError("mean or std holds a value that is not finite.")
        if not (std > 0).all():
            raise StatisticsError(f"std holds {std.min()}, expected only values above 0.")
        object.__setattr__(self, "mean", mean)
        object.__setattr__(self, "std", std)

    def check_shape(self, shape: tuple[int, ...], feature: str) -> None:
        """Refuse another shape.

        Raises:
            StatisticsError: it is another one.
        """
        if self.mean.shape != shape:
            raise StatisticsError(f"statistics of {feature} have shape {self.mean.shape}, expected {shape}.")


@dataclass(frozen=True, slots=True)
class Statistics:
    """Per feature; images by camera name, (3, 1, 1) on 0..1."""

    state: MeanStd
    action: MeanStd
    images: Mapping[str, MeanStd]

    def feature(self, name: str) -> MeanStd:
        """By the feature's name in the file, for example "observation.image_wrist".

        Raises:
            StatisticsError: there is none.
        """
        features = self.features()
        if name not in features:
            raise StatisticsError(f"there are no statistics of {name}; there are those of {', '.join(features)}.")
        return features[name]

    def features(self) -> dict[str, MeanStd]:
        """By the features' names in the file."""
        images = {f"{_IMAGE}{camera}": values for camera, values in self.images.items()}
        return {**images, _STATE: self.state, _ACTION: self.action}


def normalise(x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """To mean 0 and deviation 1, as the reference does it to the last bit."""
    return (x - mean) / (std + _EPS)


def unnormalise(x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Back to physical units. The reference leaves the epsilon of `normalise` out here, and so must we."""
    return x * std + mean


def save_statistics(path: Path, statistics: Statistics) -> None:
    """Write the file as a whole.

    Raises:
        StatisticsError: the disk refuses it.
    """
    content = {
        feature: {"mean": torch.from_numpy(values.mean.copy()), "std": torch.from_numpy(values.std.copy())}
        for feature, values in statistics.features().items()
    }
    try:
        with replacing(path) as temporary:
            torch.save(content, temporary)
    except (OSError, RuntimeError) as error:  # torch turns most failures of the disk into the second
        raise StatisticsError(
            f"{path} cannot be written ({error_line(error)}). Is the disk full? Free some space, and resume the run."
        ) from error


def load_statistics(path: Path) -> Statistics:
    """Read and check a `dataset_stats.pt`; it is never unpickled freely.

    Raises:
        StatisticsError: the file is missing or malformed; the error names file and field.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise StatisticsError(
            f"{path} is missing; it belongs beside the checkpoint. Download the run again."
        ) from error
    except Exception as error:  # torch names no set of errors for a file that is not its own
        raise StatisticsError(f"{path} is not a statistics file ({error_line(error)}). Download it again.") from error
    if not isinstance(content, dict):
        raise StatisticsError(
            f"{path} holds a {type(content).__name__}, expected a dict of features. Download it again."
        )
    features = {str(name): _mean_std(path, str(name), values) for name, values in content.items()}
    missing = [name for name in (_STATE, _ACTION) if name not in features]
    if missing:
        raise StatisticsError(
            f"{path}: no {' and no '.join(missing)}; found {', '.join(features) or 'nothing'}. Download it again."
        )
    images = {name.removeprefix(_IMAGE): values for name, values in features.items() if name.startswith(_IMAGE)}
    return Statistics(state=features[_STATE], action=features[_ACTION], images=MappingProxyType(images))


def _mean_std(path: Path, feature: str, values: Any) -> MeanStd:
    expected_dims = 3 if feature.startswith(_IMAGE) else 1
    arrays = []
    for field in ("mean", "std"):
        tensor = values.get(field) if isinstance(values, dict) else None
        if not isinstance(tensor, Tensor):
            raise StatisticsError(f"{path}: {feature}.{field} is not a tensor. Download it again.")
        if tensor.dim() != expected_dims or (expected_dims == 3 and tuple(tensor.shape) != (3, 1, 1)):
            expected = "(3, 1, 1)" if expected_dims == 3 else "(n,)"
            raise StatisticsError(f"{path}: {feature}.{field} has shape {tuple(tensor.shape)}, expected {expected}.")
        arrays.append(tensor.to(torch.float32).numpy())
    try:
        return MeanStd(*arrays)
    except StatisticsError as error:
        raise StatisticsError(f"{path}: {feature}: {error}") from error


def error_line(error: BaseException) -> str:
    """The first line of what a library says; torch adds its own stack below it."""
    return (str(error).splitlines() or [type(error).__name__])[0]


class StatisticsBuilder:
    """Gathers statistics in one pass over the data, in float64 (Chan et al. 1979, equations 1.5)."""

    def __init__(self, *, cameras: Iterable[str]):
        self._state = _Moments()
        self._action = _Moments()
        self._images = {camera: np.zeros((3, 256), dtype=np.int64) for camera in cameras}

    def add_state(self, state: NDArray[Any]) -> None:
        """State rows (N, S)."""
        self._state.add(state, _STATE)

    def add_action(self, action: NDArray[Any]) -> None:
        """Action rows (N, A)."""
        self._action.add(action, _ACTION)

    def add_images(self, camera: str, frames: NDArray[np.uint8]) -> None:
        """Frames (N, H, W, 3) uint8, in the colour order and size that the network gets."""
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3:
            raise StatisticsError(f"frames of {camera} are {frames.dtype} {frames.shape}, expected uint8 (N, H, W, 3).")
        for channel, counts in enumerate(self._images[camera]):
            counts += np.bincount(frames[..., channel].ravel(), minlength=256)

    def build(self) -> Statistics:
        """The statistics so far, standard deviations floored at `STD_FLOOR`.

        Raises:
            StatisticsError: nothing was added for a feature.
        """
        images = {camera: _of_counts(counts, camera) for camera, counts in self._images.items()}
        return Statistics(self._state.build(_STATE), self._action.build(_ACTION), MappingProxyType(images))


class _Moments:
    """Count, mean and sum of squared deviations, mergeable without cancellation."""

    def __init__(self) -> None:
        self._count = 0
        self._mean: NDArray[np.float64] = np.zeros(0)
        self._squares: NDArray[np.float64] = np.zeros(0)

    def add(self, rows: NDArray[Any], feature: str) -> None:
        rows = np.asarray(rows, dtype=np.float64)
        if rows.ndim != 2 or (self._count and rows.shape[1] != len(self._mean)):
            raise StatisticsError(f"rows of {feature} have shape {rows.shape}, expected (N, {len(self._mean) or 'n'}).")
        if not np.isfinite(rows).all():
            raise StatisticsError(f"{feature} holds a value that is not finite.")
        if not len(rows):
            return
        mean = rows.mean(axis=0)
        squares = np.square(rows - mean).sum(axis=0)
        if self._count:
            total = self._count + len(rows)
            apart = mean - self._mean
            squares = self._squares + squares + np.square(apart) * (self._count * len(rows) / total)
            mean = self._mean + apart * (len(rows) / total)
        self._count, self._mean, self._squares = self._count + len(rows), mean, squares

    def build(self, feature: str) -> MeanStd:
        if not self._count:
            raise StatisticsError(f"there is no data to compute statistics of {feature} from.")
        return _floored(self._mean, np.sqrt(self._squares / self._count))


def _of_counts(counts: NDArray[np.int64], camera: str) -> MeanStd:
    """From how often each level 0..255 occurs per channel, (3, 256): exact for any number of frames."""
    total = counts.sum(axis=1)
    if not total.all():
        raise StatisticsError(f"there are no frames to compute statistics of camera {camera} from.")
    levels = np.arange(256) / 255.0
    mean = counts @ levels / total
    variance = (counts * np.square(levels[None] - mean[:, None])).sum(axis=1) / total
    return _floored(mean.reshape(3, 1, 1), np.sqrt(variance).reshape(3, 1, 1))


def _floored(mean: NDArray[np.float64], std: NDArray[np.float64]) -> MeanStd:
    return MeanStd(mean.astype(np.float32), np.maximum(std, STD_FLOOR).astype(np.float32))
