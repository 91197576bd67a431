from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from policies.normalize import (
    MeanStd,
    Statistics,
    StatisticsBuilder,
    StatisticsError,
    load_statistics,
    normalise,
    save_statistics,
    unnormalise,
)


def build(state: np.ndarray, action: np.ndarray, frames: np.ndarray, parts: int = 1) -> Statistics:
    builder = StatisticsBuilder(cameras=["top"])
    for some_state, some_action, some_frames in zip(
        np.array_split(state, parts), np.array_split(action, parts), np.array_split(frames, parts), strict=True
    ):
        builder.add_state(some_state)
        builder.add_action(some_action)
        builder.add_images("top", some_frames)
    return builder.build()


def example() -> Statistics:
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (20, 5, 4, 3), dtype=np.uint8)
    return build(rng.normal(size=(20, 2)), rng.normal(size=(20, 3)), frames)


@given(parts=st.integers(1, 30), offset=st.sampled_from([0.0, 1e6]))
def test_statistics_do_not_depend_on_how_the_data_is_split(parts: int, offset: float) -> None:
    rng = np.random.default_rng(1)
    rows, frames = rng.normal(offset, 2.0, (40, 3)), rng.integers(0, 256, (40, 3, 2, 3), dtype=np.uint8)
    found = build(rows, rows * 2, frames, parts)
    assert found.state.mean == pytest.approx(rows.mean(axis=0), rel=1e-6)
    assert found.state.std == pytest.approx(rows.std(axis=0), rel=1e-6)
    assert found.action.std == pytest.approx(2 * rows.std(axis=0), rel=1e-6)
    assert found.images["top"].mean.shape == (3, 1, 1)
    assert found.images["top"].mean.ravel() == pytest.approx(frames.reshape(-1, 3).mean(axis=0) / 255, rel=1e-6)
    assert found.images["top"].std.ravel() == pytest.approx((frames / 255).reshape(-1, 3).std(axis=0), rel=1e-6)


def test_a_joint_that_never_moves_does_not_explode() -> None:
    found = build(np.ones((5, 2)), np.zeros((5, 3)), np.zeros((5, 2, 2, 3), dtype=np.uint8))
    assert found.state.std.tolist() == pytest.approx([1e-2, 1e-2])
    assert found.images["top"].std.ravel().tolist() == pytest.approx([1e-2] * 3)


@pytest.mark.parametrize(
    ("rows", "says"), [(np.full((2, 2), np.nan), "finite"), (np.zeros((2, 3)), r"\(N, 2\)"), (np.zeros(2), "shape")]
)
def test_bad_rows_are_refused(rows: np.ndarray, says: str) -> None:
    builder = StatisticsBuilder(cameras=[])
    builder.add_state(np.zeros((2, 2)))
    with pytest.raises(StatisticsError, match=says):
        builder.add_state(rows)


def test_statistics_of_nothing_are_refused() -> None:
    builder = StatisticsBuilder(cameras=[])
    with pytest.raises(StatisticsError, match=r"no data .* observation\.state"):
        builder.build()


def test_normalising_is_the_reference_formula() -> None:
    x, mean, std = torch.tensor([3.0]), torch.tensor([1.0]), torch.tensor([0.5])
    assert normalise(x, mean, std).item() == pytest.approx(2 / (0.5 + 1e-8))
    assert unnormalise(torch.tensor([4.0]), mean, std).item() == 3.0


def test_a_file_reads_back_as_it_was_written(tmp_path: Path) -> None:
    written = example()
    save_statistics(tmp_path / "dataset_stats.pt", written)
    content = torch.load(tmp_path / "dataset_stats.pt", weights_only=True)
    assert set(content) == {"observation.image_top", "observation.state", "action"}
    assert content["observation.image_top"]["std"].shape == (3, 1, 1)
    read = load_statistics(tmp_path / "dataset_stats.pt")
    for feature, values in written.features().items():
        assert (read.feature(feature).mean == values.mean).all()
        assert (read.feature(feature).std == values.std).all()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"action": None}, r"action\.mean is not a tensor"),
        ({"action": {"mean": torch.zeros(3)}}, r"action\.std is not a tensor"),
        ({"action": {"mean": torch.zeros(3), "std": torch.zeros(3)}}, r"action: std holds 0"),
        ({"action": {"mean": torch.zeros(3), "std": torch.ones(2)}}, r"action: mean has shape \(3,\), std \(2,\)"),
        ({"action": {"mean": torch.full((3,), torch.nan), "std": torch.ones(3)}}, "action: .* not finite"),
        ({"observation.image_top": {"mean": torch.zeros(3), "std": torch.ones(3)}}, r"expected \(3, 1, 1\)"),
        ({"observation.state": {"mean": torch.zeros(2, 1), "std": torch.ones(2, 1)}}, r"expected \(n,\)"),
    ],
)
def test_a_malformed_field_is_named(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    path = tmp_path / "dataset_stats.pt"
    save_statistics(path, example())
    torch.save({**torch.load(path, weights_only=True), **change}, path)
    with pytest.raises(StatisticsError, match=says) as caught:
        load_statistics(path)
    assert str(path) in str(caught.value)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("content", [b"", b"not a file of torch", pickle.dumps({"action": print})])
def test_what_is_no_statistics_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "dataset_stats.pt"
    path.write_bytes(content)
    with pytest.raises(StatisticsError, match=r"dataset_stats\.pt is not a statistics file"):
        load_statistics(path)


def test_missing_files_and_features_are_named(tmp_path: Path) -> None:
    with pytest.raises(StatisticsError, match="missing"):
        load_statistics(tmp_path / "dataset_stats.pt")
    torch.save({}, tmp_path / "empty.pt")
    with pytest.raises(StatisticsError, match=r"no observation\.state and no action"):
        load_statistics(tmp_path / "empty.pt")
    torch.save([1], tmp_path / "list.pt")
    with pytest.raises(StatisticsError, match="holds a list"):
        load_statistics(tmp_path / "list.pt")
    with pytest.raises(StatisticsError, match="no statistics of observation"):
        example().feature("observation.image_side")


def test_standard_deviations_are_above_zero() -> None:
    with pytest.raises(StatisticsError, match="above 0"):
        MeanStd(np.zeros(2, np.float32), np.array([1, 0], np.float32))
