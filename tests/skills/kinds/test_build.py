from __future__ import annotations

from pathlib import Path

import pytest
from py_trees.behaviour import Behaviour
from py_trees.common import Status
from py_trees.composites import Sequence
from py_trees.display import unicode_tree
from skill_bench import Bench, FakePolicy, done, holding, inline, input_spec, small_spec, write_learned, write_skill

from policies.manifest import ManifestError
from skills.kinds import SkillNotRunnableError, build, build_for_drawing
from skills.outcome import Outcome
from skills.store import SkillStore

START, END = [0.1, -0.6, 1.4, -0.7, 0.0, 0.0], [0.0, -0.6, 1.4, -0.7, 0.0, 0.0]
WAVE = Path(__file__).parents[3] / "skills/builtin/wave/data/episode_0.h5"


def shape(root: Behaviour) -> list[str]:
    return [f"{type(child).__name__} {child.name}" for child in root.children]


def episode_in(skill_dir: Path) -> None:
    (skill_dir / "data").mkdir(parents=True, exist_ok=True)
    (skill_dir / "data/episode_0.h5").write_bytes(WAVE.read_bytes())


def test_a_learned_skill(tmp_path: Path) -> None:
    entry = write_learned(tmp_path, "pick", input_spec(small_spec()), start_pose=START, end_pose=END)
    root = build(entry, Bench())
    assert (type(root), root.name, root.memory) == (Sequence, "pick", True)
    assert shape(root) == [
        "LoadPolicy LoadPolicy",
        "SensorsReady SensorsReady",
        "MoveTo start_pose",
        "PolicyLoop PolicyLoop",
        "MoveTo end_pose",
    ]


def test_a_learned_skill_without_poses(tmp_path: Path) -> None:
    entry = write_learned(tmp_path, "pick", input_spec(small_spec()))
    assert shape(build(entry, Bench())) == [
        "LoadPolicy LoadPolicy",
        "SensorsReady SensorsReady",
        "PolicyLoop PolicyLoop",
    ]


def test_a_replay_skill_begins_where_the_recording_began(tmp_path: Path) -> None:
    episode_in(tmp_path / "wave")
    document = {"type": "replay", "execution": {"replay_file": "data/episode_0.h5"}}
    root = build(write_skill(tmp_path, "wave", document), Bench())
    assert shape(root) == [
        "LoadEpisode LoadEpisode",
        "SensorsReady SensorsReady",
        "MoveTo first_pose",
        "ReplayLoop ReplayLoop",
    ]
    document["execution"] |= {"start_pose": START, "end_pose": END}
    root = build(write_skill(tmp_path, "wave", document), Bench())
    assert shape(root)[2:] == ["MoveTo start_pose", "ReplayLoop ReplayLoop", "MoveTo end_pose"]


def test_a_poses_skill_goes_from_pose_to_pose(tmp_path: Path) -> None:
    bench = Bench()
    document = {"type": "poses", "execution": {"poses": [START, END], "steps": 0.8, "speed": 2.0}}
    root = build(write_skill(tmp_path, "nod", document), bench)
    assert shape(root) == ["SensorsReady SensorsReady", "MoveTo pose 1", "MoveTo pose 2"]
    took_s = bench.run(root)
    assert root.status == Status.SUCCESS
    assert bench.robot.read().qpos[0] == pytest.approx(0.0, abs=0.05)
    assert 0.8 <= took_s <= 2.0


def test_a_learned_skill_runs_from_load_to_end_pose(tmp_path: Path) -> None:
    bench = Bench()
    spec = input_spec(bench.spec, progress=True)
    policy = FakePolicy(spec, lambda inputs, t_s: holding(inputs, base=(0.1, 0.0), progress=1.0))
    asked: list[Path] = []

    def policies(checkpoint: Path):
        asked.append(checkpoint)
        return done(inline(policy))

    bench.policies = policies
    entry = write_learned(tmp_path, "pick", spec, start_pose=START, end_pose=END, progress_hold_ticks=3)
    root = build(entry, bench)
    bench.run(root)
    assert root.status == Status.SUCCESS
    assert asked == [tmp_path / "pick/run_1/act_policy_step_2.pth"]
    assert bench.robot.read().qpos[0] == pytest.approx(0.0, abs=0.05)


def test_a_learned_skill_says_how_its_chunks_are_played(tmp_path: Path) -> None:
    bench = Bench()
    spec = input_spec(bench.spec)
    policy = FakePolicy(spec, lambda inputs, t_s: holding(inputs, base=(0.2 * (len(policy.seen) % 2), 0.0)))
    bench.policies = lambda checkpoint: done(inline(policy))
    entry = write_learned(tmp_path, "pick", spec, duration=2.0, n_action_steps=10, chunk_mode="receding")
    root = build(entry, bench)
    bench.run(root)
    assert root.status == Status.SUCCESS
    assert {round(command.action[6], 6) for command in bench.asked} == {0.0, 0.2}


def test_each_build_makes_new_nodes(tmp_path: Path) -> None:
    entry, bench = write_learned(tmp_path, "pick", input_spec(small_spec()), start_pose=START), Bench()
    first, second = build(entry, bench), build(entry, bench)
    assert not {id(node) for node in first.iterate()} & {id(node) for node in second.iterate()}
    Sequence("both", memory=True, children=[first, second])


def test_a_skill_in_training_can_be_drawn_and_not_ticked(tmp_path: Path) -> None:
    write_skill(tmp_path, "grasp", {"type": "learned", "execution": {"start_pose": START}})
    store = SkillStore(tmp_path, tmp_path / "none")
    with pytest.raises(SkillNotRunnableError, match=r"local/grasp has no usable checkpoint yet. Train it with"):
        build(store.get("grasp"), Bench())
    root = build_for_drawing(store, "grasp")
    assert "start_pose" in unicode_tree(root)
    root.tick_once()
    assert root.status == Status.FAILURE
    failed = root.tip()
    assert failed.outcome is Outcome.FAULT
    assert "was built to be drawn: it has no policy and cannot be ticked" in failed.feedback_message


@pytest.mark.parametrize("kind", ["learned", "replay", "poses"])
def test_every_kind_can_be_drawn(tmp_path: Path, kind: str) -> None:
    write_learned(tmp_path, "learned", input_spec(small_spec()))
    episode_in(tmp_path / "replay")
    write_skill(tmp_path, "replay", {"type": "replay", "execution": {"replay_file": "data/episode_0.h5"}})
    write_skill(tmp_path, "poses", {"type": "poses", "execution": {"poses": [START]}})
    root = build_for_drawing(SkillStore(tmp_path, tmp_path / "none"), kind)
    assert root.name == kind
    root.tick_once()
    assert root.status == Status.FAILURE


def test_a_broken_skill_is_refused_with_its_problem(tmp_path: Path) -> None:
    entry = write_skill(tmp_path, "nod", {"type": "poses", "execution": {"poses": []}})
    with pytest.raises(SkillNotRunnableError, match=r"local/nod is broken: .*execution.poses is empty"):
        build(entry, Bench())
    with pytest.raises(SkillNotRunnableError, match="is broken"):
        build_for_drawing(SkillStore(tmp_path, tmp_path / "none"), "nod")


def test_a_code_skill_is_refused_by_its_kind(tmp_path: Path) -> None:
    (tmp_path / "sing.py").write_text("")
    entry = SkillStore(tmp_path, tmp_path / "none").get("sing")
    with pytest.raises(SkillNotRunnableError, match="local/sing is a code skill; those that run are learned, replay"):
        build(entry, Bench())


def test_a_run_without_its_description_is_refused(tmp_path: Path) -> None:
    entry = write_learned(tmp_path, "pick", input_spec(small_spec()))
    (entry.path / "run_1/run.json").unlink()
    with pytest.raises(ManifestError, match=r"run\.json is missing"):
        build(entry, Bench())
