"""The reference robot's spec, and the small-camera variant that the demo uses."""

from __future__ import annotations

from hal.types import BaseSpec, CameraSpec, JointSpec, RobotSpec

# Limits in the external sign convention of the reference robot (the one its datasets use).
_JOINTS = (
    JointSpec(name="joint1", low=-1.5708, high=1.5708, max_speed=2.0, max_acceleration=20.0),
    JointSpec(name="joint2", low=-1.22, high=1.5708, max_speed=2.0, max_acceleration=20.0),
    JointSpec(name="joint3", low=-1.7453, high=1.5708, max_speed=2.0, max_acceleration=20.0),
    JointSpec(name="joint4", low=-1.7453, high=1.9199, max_speed=2.0, max_acceleration=20.0),
    JointSpec(name="joint5", low=-1.5708, high=1.5708, max_speed=2.0, max_acceleration=20.0),
    JointSpec(name="joint6", low=-0.3491, high=0.8727, max_speed=2.0, max_acceleration=20.0, gripper=True),
)
_BASE = BaseSpec(max_linear_mps=0.4, max_angular_radps=2.5, max_linear_mps2=1.0, max_angular_radps2=5.0)


def reference_spec(
    *, name: str = "reference", width: int = 640, height: int = 480, main_hz: float = 15.0, wrist_hz: float = 30.0
) -> RobotSpec:
    """Six joints, the last a gripper; a differential base; a main (head) and a wrist camera.

    The reference's control loop runs at 200 Hz; the simulated one steps at 100 Hz, which its lag makes enough.
    """
    return RobotSpec(
        name=name,
        joints=_JOINTS,
        cameras=(
            CameraSpec(name="main_camera", width=width, height=height, rate_hz=main_hz),
            CameraSpec(name="arm_camera", width=width, height=height, rate_hz=wrist_hz),
        ),
        base=_BASE,
        control_rate_hz=100.0,
        state_rate_hz=100.0,
    )


def demo_spec() -> RobotSpec:
    """The reference robot with two 96x96 cameras at 15 Hz: small enough to learn from in two minutes."""
    return reference_spec(name="demo", width=96, height=96, main_hz=15.0, wrist_hz=15.0)
