"""One cycle of a full-size ACT policy, from two camera frames to a chunk of actions, by each engine that runs here.

| column | what |
|---|---|
| `preprocess` | from 640x480 frames to what the engine takes |
| `forward` | the engine, with copying its inputs and outputs |
| `total` | both |
| `max_error` | largest difference to the network in float32, in deviations of the training data |

`baseline` is one tick of the reference robot's node: per frame a resize, a tensor of floats in 0..1 with channels
first, then the unfolded network in float32 (frozen batch norms, a pass through the backbone per camera), un-normalised.
`eager` is the same network as our own reference runs it.

All contenders take turns, cycle by cycle, so that other work on the machine slows all of them down.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

# As in the policy process; read when torch is loaded. Threads that spin while they wait disturb whoever else computes.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from btruntime.training.trainer.config import make_config
from hal.sim.specs import reference_spec
from policies.act.model import ACTNetwork
from policies.checkpoint import Checkpoint, load, save
from policies.engines.base import BOUNDS, Engine
from policies.engines.choose import candidates_for, proof_inputs
from policies.engines.torch_cpu import EagerEngine
from policies.normalize import MeanStd, Statistics
from policies.preprocess import resize
from policies.spec import CameraInput, Image, InputSpec

FRAME_SIZE = (480, 640)
CPU = torch.device("cpu")
COLUMNS = {
    "preprocess_ms_p50": "{:.2f}",
    "forward_ms_p50": "{:.1f}",
    "total_ms_p50": "{:.1f}",
    "total_ms_p95": "{:.1f}",
    "total_ms_p99": "{:.1f}",
    "of_baseline": "{:.2f}",
    "max_error": "{:.2g}",
}

Cycle = Callable[[NDArray[np.float32], Sequence[Image]], tuple[float, float, NDArray[np.float32]]]
"""State and camera frames to seconds of preprocessing, seconds of the forward pass, and the chunk."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cycles", type=int, metavar="N", help="of each contender (default: 200, quick: 12)")
    parser.add_argument("--threads", type=int, metavar="N", help="default: all cores")
    parser.add_argument("--engines", metavar="NAMES", help="only those that begin so, with commas between")
    parser.add_argument("--quick", action="store_true", help="fewer cycles, and only engines that are built quickly")
    parser.add_argument("--json", action="store_true", help="one object on the last line")
    args = parser.parse_args()
    threads = args.threads or os.cpu_count() or 1
    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory(prefix="btruntime-policy-") as place:
        result = measure(load(full_size_run(Path(place))), args.cycles or (12 if args.quick else 200), args)
    print(f"{os.cpu_count()} CPUs, {threads} threads, load {os.getloadavg()[0]:.1f}, best: {result['best']}")
    print(f"| | {' | '.join(COLUMNS)} |")
    print("|---" * (len(COLUMNS) + 1) + "|")
    for name, row in {"baseline": result["baseline"], **result["engines"]}.items():
        print(f"| `{name}` | {' | '.join(form.format(row[key]) for key, form in COLUMNS.items())} |")
    for name, reason in result["refused"].items():
        print(f"`{name}` cannot run here: {reason}")
    if args.json:
        print(json.dumps({**result, "threads": threads}))
    return 0


def measure(checkpoint: Checkpoint, cycles: int, args: argparse.Namespace) -> dict[str, Any]:
    """Figures of all contenders by name."""
    spec, random = checkpoint.spec, np.random.default_rng(1)
    reference = EagerEngine(checkpoint.network, spec, CPU)
    engines: dict[str, Engine] = {"eager": reference}
    bounds, refused = {"eager": BOUNDS["float32"]}, {}
    for candidate in candidates_for(CPU):
        slow = args.quick and candidate.slow
        other = args.engines is not None and not candidate.name.startswith(tuple(args.engines.split(",")))
        if slow or other:
            continue
        try:
            engines[candidate.name] = candidate.build(checkpoint)
        except Exception as error:  # noqa: BLE001 - the table says of any engine why it is not there
            refused[candidate.name] = str(error)
            continue
        bounds[candidate.name] = BOUNDS[candidate.precision]
    contenders: dict[str, Cycle] = {"baseline": reference_tick(checkpoint)}
    contenders.update((name, engine_cycle(engine, spec)) for name, engine in engines.items())

    errors = dict.fromkeys(contenders, 0.0)
    for state, frames in proof_inputs(checkpoint):
        expected = reference(state, frames)
        for name, cycle in contenders.items():
            error = np.abs((cycle(state, frames)[2] - expected) / checkpoint.statistics.action.std).max()
            errors[name] = max(errors[name], float(error))
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    for number in range(cycles + 2):
        state = checkpoint.statistics.state.mean + random.standard_normal(spec.state_dim).astype(np.float32)
        frames = [random.integers(0, 256, (*FRAME_SIZE, 3), dtype=np.uint8) for _ in spec.cameras]
        for name, cycle in contenders.items():
            preprocess_s, forward_s, _ = cycle(state.astype(np.float32), frames)
            if number >= 2:  # the first ones fill caches
                times[name].append((preprocess_s, forward_s))
    rows = {name: figures(np.array(taken) * 1e3) for name, taken in times.items()}
    for name, row in rows.items():
        row["of_baseline"] = row["total_ms_p50"] / rows["baseline"]["total_ms_p50"]
        row["max_error"] = errors[name]
    fit = [name for name in engines if errors[name] <= bounds[name]]
    return {
        "best": min(fit, key=lambda name: rows[name]["total_ms_p50"]),
        "baseline": rows.pop("baseline"),
        "engines": rows,
        "refused": refused,
        "gpu": None,
        "cycles": cycles,
    }


def figures(times_ms: NDArray[np.float64]) -> dict[str, float]:
    """Of (N, 2) milliseconds of preprocessing and of the forward pass."""
    total_ms = times_ms.sum(axis=1)
    return {
        "preprocess_ms_p50": float(np.median(times_ms[:, 0])),
        "forward_ms_p50": float(np.median(times_ms[:, 1])),
        **{f"total_ms_p{share}": float(np.percentile(total_ms, share)) for share in (50, 95, 99)},
    }


def engine_cycle(engine: Engine, spec: InputSpec) -> Cycle:
    """As `ACTPolicy` does it."""

    def cycle(state: NDArray[np.float32], frames: Sequence[Image]) -> tuple[float, float, NDArray[np.float32]]:
        began_s = time.perf_counter()
        resized = [resize(frame, cam.height, cam.width) for frame, cam in zip(frames, spec.cameras, strict=True)]
        preprocessed_s = time.perf_counter()
        chunk = engine(state, resized)
        return preprocessed_s - began_s, time.perf_counter() - preprocessed_s, chunk

    return cycle


def reference_tick(checkpoint: Checkpoint) -> Cycle:
    """One tick of the reference robot's node."""
    spec, network = checkpoint.spec, checkpoint.network
    model = network.model

    def each_camera(images: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        return [model.encoder_img_feat_input_proj(model.backbone(image)) for image in images]

    def cycle(state: NDArray[np.float32], frames: Sequence[Image]) -> tuple[float, float, NDArray[np.float32]]:
        began_s = time.perf_counter()
        images = []
        for frame, camera in zip(frames, spec.cameras, strict=True):
            small = frame
            if frame.shape[:2] != (camera.height, camera.width):
                small = cv2.resize(frame, (camera.width, camera.height), interpolation=cv2.INTER_AREA)
            images.append((torch.from_numpy(small).float() / 255.0).permute(2, 0, 1).unsqueeze(0).to(CPU))
        joints = torch.from_numpy(state).float().unsqueeze(0).to(CPU)
        preprocessed_s = time.perf_counter()
        together, model._features = model._features, each_camera  # the reference knows no batch of cameras
        try:
            with torch.no_grad():
                chunk = network.predict(joints, images).squeeze(0).cpu().numpy()
        finally:
            model._features = together
        return preprocessed_s - began_s, time.perf_counter() - preprocessed_s, chunk

    return cycle


def full_size_run(directory: Path) -> Path:
    """The checkpoint of a policy for the reference robot as the default preset builds it, with random weights."""
    robot, config = reference_spec(), make_config()
    action = robot.action_spec(base=True, progress=True)
    spec = InputSpec(
        cameras=tuple(
            CameraInput(name=name, height=config.image_height, width=config.image_width) for name in robot.camera_names
        ),
        joint_names=robot.joint_names,
        action=tuple(dim.model_dump(mode="json") for dim in action.dims),
        data_frequency_hz=30.0,
        chunk_size=config.chunk_size,
        robot=robot.name,
    )
    image = MeanStd(
        np.array([0.485, 0.456, 0.406], np.float32).reshape(3, 1, 1),
        np.array([0.229, 0.224, 0.225], np.float32).reshape(3, 1, 1),
    )
    size = len(action.dims)
    statistics = Statistics(
        state=MeanStd(np.full(spec.state_dim, 0.3, np.float32), np.full(spec.state_dim, 0.5, np.float32)),
        action=MeanStd(np.full(size, 0.3, np.float32), np.full(size, 0.2, np.float32)),
        images=dict.fromkeys(robot.camera_names, image),
    )
    torch.manual_seed(0)
    network = ACTNetwork(config.network(spec), statistics)
    return save(directory, 1, network.state_dict(), statistics, spec, network.config)


if __name__ == "__main__":
    sys.exit(main())
