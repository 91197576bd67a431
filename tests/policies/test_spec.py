from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError
from tiny_policy import SPEC, tiny_input

from policies.spec import InputSpec, PolicyInput, PolicyInputError, check_input


def test_a_spec_survives_json() -> None:
    assert InputSpec.model_validate_json(SPEC.model_dump_json()) == SPEC
    assert (SPEC.state_dim, SPEC.action_dim, SPEC.camera_names) == (2, 3, ("top",))


@pytest.mark.parametrize(
    "change",
    [
        {"joint_names": ("a", "a")},
        {"joint_names": ()},
        {"cameras": [{"name": "top", "height": 4, "width": 6}] * 2},
        {"cameras": [{"name": "top", "height": 0, "width": 6}]},
        {"action": ()},
        {"data_frequency_hz": float("nan")},
        {"data_frequency_hz": 0},
        {"chunk_size": 0},
        {"colour": "grey"},
        {"state": ()},
    ],
)
def test_an_impossible_spec_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        InputSpec.model_validate({**SPEC.model_dump(), **change})


def test_an_observation_that_fits_passes() -> None:
    check_input(SPEC, tiny_input(size=9))


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        (PolicyInput(np.zeros(3, np.float32), {}, 0.0), r"shape \(3,\), expected \(2,\): a, b"),
        (PolicyInput(np.array([0, np.nan], np.float32), {}, 0.0), "no finite value for b"),
        (PolicyInput(np.zeros(2, np.float32), {}, float("-inf")), "never delivered"),
        (PolicyInput(np.zeros(2, np.float32), {"side": np.zeros((1, 1, 3), np.uint8)}, 0.0), "'top', .* has side"),
        (PolicyInput(np.zeros(2, np.float32), {"top": np.zeros((1, 1, 3))}, 0.0), "'top' is float64"),  # type: ignore[dict-item]
        (PolicyInput(np.zeros(2, np.float32), {"top": np.zeros((1, 1, 4), np.uint8)}, 0.0), r"\(1, 1, 4\)"),
    ],
)
def test_an_observation_that_does_not_fit_is_refused(inputs: PolicyInput, says: str) -> None:
    with pytest.raises(PolicyInputError, match=says):
        check_input(SPEC, inputs)
