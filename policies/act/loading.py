"""Loading an ACT checkpoint as a policy, without loading torch before that is called for.

`functools.partial(load_act_policy, path)` is what a `ProcessRunner` takes: the control process never imports torch.
"""

from __future__ import annotations

from pathlib import Path

from policies.runner import Policy


def load_act_policy(path: Path, device: str = "auto", engine: str = "eager") -> Policy:
    """The policy of a checkpoint file, warmed up.

    Args:
        path: an `act_policy_step_<n>.pth` with its `run.json` and statistics beside it.
        device: "cpu", "cuda", or "auto": a GPU where there is one.
        engine: "eager" is the network itself, which an evaluation wants; "auto" the fastest that computes the same
            within a bound, which a robot wants; or the name of one (`policies.engines.choose`).

    Raises:
        CheckpointError: see `policies.checkpoint.load`.
        ManifestError: see there.
        StatisticsError: see there.
        DeviceError: the device is unknown or not there.
        EngineError: the engine is unknown, or cannot run this policy here.
    """
    from policies.act.policy import ACTPolicy

    return ACTPolicy.load(path, device, engine)
