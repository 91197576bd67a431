from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch
from engine_parts import checkpoint

from policies.engines.base import EngineError
from policies.engines.choose import choose_engine, proof_inputs
from policies.engines.openvino import OpenVinoEngine
from policies.engines.torch_cpu import EagerEngine


def test_without_openvino_it_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(EngineError, match=r'openvino-bf16.*pip install "btruntime\[openvino\]"'):
        choose_engine(checkpoint(), "cpu", "openvino")


def test_it_computes_what_the_network_computes() -> None:
    pytest.importorskip("openvino", reason="openvino is not installed")
    tiny = checkpoint(((32, 32), (32, 40)), colour="bgr")
    engine = OpenVinoEngine(tiny, "openvino-f32", "f32")
    reference = EagerEngine(tiny.network, tiny.spec, torch.device("cpu"))
    for sample in proof_inputs(tiny):
        np.testing.assert_allclose(engine(*sample), reference(*sample), atol=2e-4)
