from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch
from act_parts import CONFIG, SPEC, batch, network, statistics

from policies.act.config import ACTConfig
from policies.act.model import ACTNetwork
from policies.checkpoint import Checkpoint, load, save
from policies.exporting import ExportError, export_onnx, export_reference, reference_problems
from policies.importers import ImportOptions, install, recognise
from policies.importers.reference import JOINTS, documented_action
from policies.normalize import MeanStd, Statistics
from policies.preprocess import images_for
from policies.spec import CameraInput, InputSpec

CAMERAS = ("arm_camera", "main_camera")  # by alphabet, which is the wrong order for the reference robot

needs_onnx = pytest.mark.skipif(
    any(find_spec(name) is None for name in ("onnx", "onnxruntime")), reason="onnx and onnxruntime are not installed"
)


def _spec(**changes: Any) -> InputSpec:
    action = documented_action(10)
    assert action is not None
    return InputSpec(
        cameras=tuple(CameraInput(name=name, height=224, width=224) for name in CAMERAS),
        joint_names=JOINTS,
        action=action,
        data_frequency_hz=30,
        chunk_size=5,
        robot="reference",
    ).model_copy(update=changes)


def _statistics() -> Statistics:
    random = np.random.default_rng(0)

    def of(*shape: int) -> MeanStd:
        return MeanStd(random.normal(size=shape), random.uniform(0.2, 0.9, shape))

    return Statistics(of(6), of(10), MappingProxyType({name: of(3, 1, 1) for name in CAMERAS}))


@pytest.fixture(params=["rgb", "bgr"])
def full(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Checkpoint:
    """A policy of as many layers as the reference robot builds, but narrow, which is tested by itself."""
    monkeypatch.setattr("policies.exporting.reference_problems", lambda config, spec: [])
    torch.manual_seed(0)
    config = ACTConfig(
        chunk_size=5,
        state_dim=6,
        action_dim=10,
        cameras=CAMERAS,
        normalise_in_model=False,
        dim_model=32,
        dim_feedforward=32,
        backbone_width=4,
    )
    made = ACTNetwork(config, _statistics())
    directory = tmp_path / "full"
    directory.mkdir()
    spec = _spec(colour=request.param)
    return load(save(directory, 3000, made.state_dict(), _statistics(), spec, config))


def test_what_comes_back_from_the_reference_form_acts_the_same(full: Checkpoint, tmp_path: Path) -> None:
    exported = export_reference(full, tmp_path / "out")
    assert [path.name for path in exported.files] == ["act_policy_step_3000.pth", "dataset_stats.pt"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full", "out"]
    imported = recognise(tmp_path / "out").read(tmp_path / "out", ImportOptions(colour="bgr"))
    assert "agrees" in imported.provenance.statistics
    back = load(install(imported, tmp_path, "back") / "act_policy_step_3000.pth")
    random = np.random.default_rng(1)
    state = torch.from_numpy(random.normal(size=(1, 6)).astype(np.float32))
    frames = {name: random.integers(0, 256, (240, 320, 3), dtype=np.uint8) for name in CAMERAS}
    with torch.inference_mode():
        before, after = (
            each.network.predict(state, images_for(each.spec, frames, torch.device("cpu"))) for each in (full, back)
        )
    assert before.abs().max() > 0.1
    assert (before - after).abs().max() < 1e-4


def test_the_reference_form_feeds_bgr_to_cameras_by_name(full: Checkpoint, tmp_path: Path) -> None:
    [file, _] = export_reference(full, tmp_path / "out").files
    state = torch.load(file, weights_only=True)
    is_swapped = full.spec.colour == "rgb"
    first, ours = state["model.backbone.conv1.weight"], full.network.state_dict()["model.backbone.conv1.weight"]
    assert torch.equal(first, ours.flip(1) if is_swapped else ours)
    for theirs, name in (("camera_1", "main_camera"), ("camera_2", "arm_camera")):
        mean = full.statistics.images[name].mean
        expected = mean[::-1].copy() if is_swapped else mean
        found = state[f"normalize_inputs.buffer_observation_image_{theirs}.mean"]
        assert np.array_equal(found.numpy(), expected)
    assert len(state) == 298


def test_a_directory_with_files_in_it_is_left_alone(full: Checkpoint, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "x").write_text("")
    with pytest.raises(ExportError, match="not empty"):
        export_reference(full, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["x"]


@pytest.mark.parametrize(
    ("config", "spec", "said"),
    [
        ({"decoder_layers": 1}, {}, "its decoder_layers is 1, expected 4"),
        ({"dim_model": 256}, {}, "its dim_model is 256, expected 512"),
        ({}, {"cameras": (CameraInput(name="top", height=224, width=224),)}, "it sees top, expected main_camera and"),
        ({}, {"cameras": tuple(CameraInput(name=name, height=96, width=96) for name in CAMERAS)}, "is 96x96"),
        ({}, {"action": SPEC.action}, "its action is"),
    ],
)
def test_what_the_reference_robot_cannot_run_is_said(
    config: Mapping[str, Any], spec: Mapping[str, Any], said: str
) -> None:
    built = ACTConfig(chunk_size=5, state_dim=6, action_dim=10, cameras=CAMERAS)
    assert reference_problems(built, _spec()) == []
    assert said in "; ".join(reference_problems(built.model_copy(update=config), _spec(**spec)))


def test_a_small_policy_is_not_exported_to_the_reference(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="cannot run on the reference robot"):
        export_reference(_small(tmp_path), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@needs_onnx
@pytest.mark.parametrize("colour", ["rgb", "bgr"])
@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.filterwarnings("ignore")
def test_onnx_acts_the_same(tmp_path: Path, colour: Any, size: int) -> None:
    import onnx
    import onnxruntime

    checkpoint = _small(tmp_path)
    export_onnx(checkpoint, tmp_path / "p.onnx", colour=colour)
    session = onnxruntime.InferenceSession(tmp_path / "p.onnx")
    state, images, _, _ = batch(size)
    fed = [image.flip(1) if colour == "bgr" else image for image in images]
    inputs = {"image_top": fed[0].numpy(), "image_side": fed[1].numpy(), "robot_state": state.numpy()}
    assert [each.name for each in session.get_inputs()] == list(inputs)
    [found] = session.run(["predicted_actions"], inputs)
    with torch.inference_mode():
        expected = checkpoint.network.predict(state, images).numpy()
    assert np.abs(found - expected).max() < 1e-5
    described = json.loads(session.get_modelmeta().custom_metadata_map["input_spec"])
    assert InputSpec.model_validate(described) == checkpoint.spec.model_copy(update={"colour": colour})
    assert [each.version for each in onnx.load(tmp_path / "p.onnx").opset_import] == [14]


@needs_onnx
@pytest.mark.filterwarnings("ignore")
def test_onnx_takes_the_names_of_the_reference_robot(tmp_path: Path) -> None:
    import onnxruntime

    cameras = ("main_camera", "arm_camera", "x.y")
    config = CONFIG.model_copy(update={"cameras": cameras})
    spec = SPEC.model_copy(update={"cameras": tuple(CameraInput(name=name, height=32, width=32) for name in cameras)})
    stats = Statistics(
        statistics().state,
        statistics().action,
        MappingProxyType(dict.fromkeys(cameras, statistics().images["top"])),
    )
    checkpoint = load(save(tmp_path, 1, ACTNetwork(config, stats).state_dict(), stats, spec, config))
    export_onnx(checkpoint, tmp_path / "p.onnx")
    names = [each.name for each in onnxruntime.InferenceSession(tmp_path / "p.onnx").get_inputs()]
    assert names == ["image_camera_1", "image_camera_2", "image_x.y", "robot_state"]


def test_onnx_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("policies.exporting.find_spec", lambda name: None)
    with pytest.raises(ExportError, match=r'needs onnx: pip install "btruntime\[onnx\]"'):
        export_onnx(_small(tmp_path), tmp_path / "p.onnx")


@needs_onnx
@pytest.mark.filterwarnings("ignore")
def test_onnx_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    checkpoint = _small(tmp_path / "run")
    with pytest.raises(ExportError, match="cannot be written"):
        export_onnx(checkpoint, tmp_path / "absent" / "p.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def _small(directory: Path) -> Checkpoint:
    directory.mkdir(exist_ok=True)
    return load(save(directory, 1, network().state_dict(), statistics(), SPEC, CONFIG))
