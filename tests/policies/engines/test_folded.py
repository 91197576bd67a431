from __future__ import annotations

import numpy as np
import pytest
import torch
from engine_parts import checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.checkpoint import Checkpoint
from policies.engines.base import Engine
from policies.engines.choose import proof_inputs
from policies.engines.torch_cpu import EagerEngine, FoldedEngine, folded

SIZES = st.sampled_from([(32, 32), (40, 56), (33, 47), (64, 32)])


def error(engine: Engine, of: Checkpoint) -> float:
    """The largest, in deviations."""
    reference = EagerEngine(of.network, of.spec, torch.device("cpu"))
    return max(
        float(np.abs((engine(*sample) - reference(*sample)) / of.statistics.action.std).max())
        for sample in proof_inputs(of)
    )


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.lists(SIZES, min_size=0, max_size=3).map(tuple),
    colour=st.sampled_from(["rgb", "bgr"]),
    norm=st.sampled_from(["batch", "frozen"]),
    encoder_layers=st.integers(1, 3),
    decoder_layers=st.integers(1, 3),
    heads=st.sampled_from([1, 2, 4]),
    use_vae=st.booleans(),
    same_pictures=st.booleans(),
    packed=st.booleans(),
    seed=st.integers(0, 99),
)
def test_computes_what_the_network_computes(
    sizes: tuple[tuple[int, int], ...],
    colour: str,
    norm: str,
    encoder_layers: int,
    decoder_layers: int,
    heads: int,
    use_vae: bool,
    same_pictures: bool,
    packed: bool,
    seed: int,
) -> None:
    tiny = checkpoint(
        sizes,
        colour=colour,
        seed=seed,
        same_pictures=same_pictures,
        backbone_norm=norm,
        encoder_layers=encoder_layers,
        decoder_layers=decoder_layers,
        heads=heads,
        use_vae=use_vae,
    )
    assert error(FoldedEngine(tiny, "folded", torch.float32, packed=packed), tiny) < 2e-5


@pytest.mark.parametrize("packed", [False, True])
def test_bfloat16_is_near_and_is_not_float32(packed: bool) -> None:
    tiny = checkpoint()
    found = error(FoldedEngine(tiny, "folded", torch.bfloat16, packed=packed), tiny)
    assert 1e-4 < found < 0.1


def test_the_colours_of_a_network_matter() -> None:
    rgb, bgr = checkpoint(colour="rgb"), checkpoint(colour="bgr")
    engine = FoldedEngine(rgb, "folded", torch.float32, packed=False)
    assert error(engine, bgr) > 1e-3


def test_the_network_is_neither_changed_nor_held() -> None:
    tiny = checkpoint()
    before = {name: tensor.clone() for name, tensor in tiny.network.state_dict().items()}
    engine = FoldedEngine(tiny, "folded", torch.float32, packed=False)
    sample = proof_inputs(tiny)[0]
    chunk = engine(*sample)
    assert all(torch.equal(tensor, before[name]) for name, tensor in tiny.network.state_dict().items())
    with torch.no_grad():
        for parameter in tiny.network.parameters():
            parameter.zero_()
    assert np.array_equal(engine(*sample), chunk)


def test_cameras_of_one_size_are_one_batch() -> None:
    network = folded(checkpoint(((32, 32), (40, 40), (32, 32))), torch.float32)
    assert network.groups == ((0, 2), (1,))
    assert [len(backbone.stems) for backbone in network.backbones] == [2, 1]


def test_cameras_with_the_same_statistics_share_the_first_convolution() -> None:
    network = folded(checkpoint(((32, 32), (32, 32)), same_pictures=True), torch.float32)
    assert [len(backbone.stems) for backbone in network.backbones] == [1]


def test_a_chunk_is_not_overwritten_by_the_next() -> None:
    tiny = checkpoint()
    engine = FoldedEngine(tiny, "folded", torch.float32, packed=True)
    first, second = proof_inputs(tiny)[:2]
    chunk = engine(*first)
    kept = chunk.copy()
    engine(*second)
    assert np.array_equal(chunk, kept)


def test_read_only_inputs_are_taken() -> None:
    tiny = checkpoint()
    state, frames = proof_inputs(tiny)[0]
    for array in (state, *frames):
        array.flags.writeable = False
    assert FoldedEngine(tiny, "folded", torch.float32, packed=False)(state, frames).shape == (5, 4)
