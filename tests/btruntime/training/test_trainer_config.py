"""Hyperparameters: defaults, presets, refusals that name what is wrong; and the split of the episodes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from btruntime.training.trainer.config import ConfigError, TrainerConfig, make_config, presets, read_config
from btruntime.training.trainer.learner import schedule
from btruntime.training.trainer.split import split_episodes


def test_the_defaults_are_the_references() -> None:
    config = make_config()
    assert (config.chunk_size, config.batch_size, config.max_steps) == (30, 96, 120_000)
    assert config.learning_rate == config.learning_rate_backbone == 5e-5
    assert config.num_workers == 4
    assert (config.image_height, config.image_width) == (224, 224)


def test_every_hyperparameter_is_explained() -> None:
    assert all(field.description for field in TrainerConfig.model_fields.values())


def test_presets_are_complete() -> None:
    assert set(presets()) == {"act-default", "cpu", "demo", "demo-full"}
    assert presets()["demo"].norm == "batch"


def test_assignments_are_json_or_text() -> None:
    config = make_config(preset="demo", assignments=("max_steps=7", "device=cpu", "max_minutes=null"))
    assert (config.max_steps, config.device, config.max_minutes) == (7, "cpu", None)


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("max_steps=0", "max_steps is 0"),
        ("learning_rate=NaN", "learning_rate is nan"),
        ("batchsize=3", "batchsize is no hyperparameter; there are chunk_size, batch_size"),
        ("max_steps", "is no assignment, expected field=value"),
        ("device=tpu", "device is 'tpu'"),
    ],
)
def test_what_is_wrong_is_named(assignment: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_config(assignments=(assignment,))


def test_an_unknown_preset_lists_the_known(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is act-default, cpu, demo, demo-full"):
        make_config(preset="fast")
    with pytest.raises(ConfigError, match="cannot be read as JSON"):
        read_config(tmp_path / "missing.json")


def test_a_file_may_name_its_preset(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"preset": "demo", "max_steps": 12}))
    assert read_config(path) == make_config(preset="demo", assignments=("max_steps=12",))


@given(st.floats(0, 0.99), st.floats(0, 1), st.integers(1, 500))
def test_the_learning_rate_rises_then_falls_to_its_floor(warmup: float, floor: float, steps: int) -> None:
    config = TrainerConfig(warmup_share=warmup, cosine_floor=floor, max_steps=steps)
    shares = [schedule(step, config) for step in range(steps)]
    assert all(0 <= share <= 1 for share in shares)
    peak = shares.index(max(shares))
    assert shares[: peak + 1] == sorted(shares[: peak + 1])
    assert shares[peak:] == sorted(shares[peak:], reverse=True)


@given(st.integers(1, 60), st.floats(0, 0.5), st.integers(0, 9))
def test_the_split_is_by_episode_and_repeatable(count: int, share: float, seed: int) -> None:
    names = [f"episode_{number}.h5" for number in range(count)]
    split = split_episodes(names, share=share, seed=seed)
    assert split == split_episodes(names, share=share, seed=seed)
    assert sorted(split.training + split.validation) == sorted(names)
    assert split.training
    if share > 0 and count > 1:
        assert len(split.validation) == min(max(round(count * share), 1), count - 1)
    else:
        assert not split.validation
