"""Draws the pictures of the README: `python docs/pictures.py`. From the simulator and the views alone."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np

from btruntime.events import snapshot
from btruntime.view.render import create_root
from btruntime.view.svg import svg
from hal.clock import VirtualClock
from hal.sim.pick import PickTask
from hal.sim.robot import SimRobot
from hal.sim.specs import reference_spec
from hal.types import Setpoint
from skills.metadata import METADATA_NAME, update_metadata
from skills.store import SkillStore

PICTURES = Path(__file__).parent / "pictures"
_SCENE = 11


def draw_cameras() -> None:
    """Main and wrist camera, while the scripted leader comes down on the cube."""
    clock, task = VirtualClock(), PickTask()
    robot = SimRobot(reference_spec(width=480, height=360), clock, seed=_SCENE)
    robot.reset(task.scene(_SCENE), task.start_pose())
    robot.start()
    leader = task.leader(robot, seed=_SCENE)
    leader.start(robot.read(), 0.0)
    pictures = []
    for until_s in (1.0, 2.6, 4.2):
        while clock.now() < until_s:
            sample = leader.read(clock.now())
            assert sample is not None
            robot.write(Setpoint(sample.qpos, sample.base_velocity, clock.now()))
            clock.sleep_until(clock.now() + 0.01)
        pictures.append(np.vstack([robot.capture(camera).rgb for camera in robot.spec.cameras]))
    small = cv2.resize(np.hstack(pictures), None, fx=0.6, fy=0.6, interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(PICTURES / "cameras.jpg"), small[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])


def draw_tree() -> None:
    """The tree of the demo's agent."""
    from btruntime.demo.demo import AGENT_FILE

    with TemporaryDirectory() as directory:
        store = SkillStore(Path(directory) / "skills")
        learned = store.create("Pick up cube")
        update_metadata(learned.path / METADATA_NAME, execution={"start_pose": task_pose()})
        poses = store.create("Hand over", "poses")
        update_metadata(poses.path / METADATA_NAME, execution={"poses": [task_pose(), task_pose()]})
        agents = Path(directory) / "agents"
        agents.mkdir()
        (agents / "demo.py").write_text(AGENT_FILE, encoding="utf-8")
        root = create_root("agent/demo", str(store.user_dir), str(agents))
        (PICTURES / "tree.svg").write_text(svg(snapshot(root, 0, 0.0)), encoding="utf-8")


def task_pose() -> list[float]:
    """Any pose will do for drawing."""
    return [float(angle) for angle in PickTask().start_pose()]


if __name__ == "__main__":
    PICTURES.mkdir(exist_ok=True)
    draw_cameras()
    draw_tree()
