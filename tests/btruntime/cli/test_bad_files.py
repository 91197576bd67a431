"""Files that are missing, cut short or corrupt: a sentence with file and remedy, and nothing else is hidden or lost."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from processes import CHECKPOINT, PROGRAM, RUN, SKILL, Place, ran

from btruntime.cli.main import main
from policies.manifest import read_run, write_run

Damage = Callable[[Path], object]


def gone(path: Path) -> None:
    path.unlink()


def empty(path: Path) -> None:
    os.truncate(path, 0)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def noise(path: Path) -> None:
    path.write_bytes(random.Random(1).randbytes(500))


def flipped(path: Path) -> None:
    """One bit in the middle, unnoticed by size and times."""
    before, content = path.stat(), bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def other_types(path: Path) -> None:
    wrong = {"name": 3, "type": "learned", "execution": [], "input_spec": [1], "config": 7, "outcome": 5, "episodes": 7}
    path.write_text(json.dumps(wrong))


def a_list(path: Path) -> None:
    path.write_text("[1, 2]")


def a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


ANY = (gone, empty, cut, noise, a_directory)
JSON = (*ANY, other_types, a_list)
NAMES = {each: each.__name__ for each in (*JSON, flipped)}
damaged = pytest.mark.parametrize("damage", JSON, ids=NAMES.get)


@dataclass(frozen=True)
class Said:
    status: int
    out: str
    err: str

    @property
    def sentence(self) -> str:
        """The one line on standard error."""
        assert self.status == 1, (self.out, self.err)
        (line,) = self.err.splitlines()
        assert line.startswith("btruntime: ")
        return line.removeprefix("btruntime: ")


Command = Callable[..., Said]


@pytest.fixture
def command(place: Place, capsys: pytest.CaptureFixture[str]) -> Command:
    """A command in this process: what is said is the same, and there are many of them."""

    def run(*arguments: str) -> Said:
        status = main([*arguments, "--skills-dir", str(place.skills)])
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return Said(status, out, err)

    return run


def has_remedy(text: str) -> bool:
    """Whether it says what to do; the words are those that sentences of btruntime use."""
    return any(
        word in text for word in ("Restore ", "Download ", "Correct ", "activate ", "Train ", "Copy it", "Move ")
    )


# metadata.json


@damaged
def test_a_broken_metadata_file_is_named_by_all_that_read_it(place: Place, command: Command, damage: Damage) -> None:
    path = place.skill / "metadata.json"
    damage(path)
    for arguments in (
        ("tree", SKILL),
        ("run", SKILL, "--fast", "--quiet", "--robot", "sim:demo", "--flights-dir", str(place.flights)),
        ("evaluate", SKILL, "--scenes", "1"),
    ):
        sentence = command(*arguments).sentence
        assert str(path) in sentence
        assert has_remedy(sentence)
        assert ".." not in sentence
    assert not place.flights.exists()
    checked = command("check", SKILL, "--robot", "sim:demo")
    assert checked.status == 1
    assert f"problem: {path}" in checked.out


@damaged
def test_a_broken_metadata_file_hides_nothing_else(place: Place, command: Command, damage: Damage) -> None:
    shutil.copytree(place.skill, place.skills / "other")
    damage(place.skill / "metadata.json")
    lines = command("skills", "list").out.splitlines()
    (broken,) = [line for line in lines if line.startswith(f"local/{SKILL} ")]
    assert "2 episodes  broken: " in broken
    (other,) = [line for line in lines if line.startswith("local/other ")]
    assert other.endswith("ready")
    shown = json.loads(command("skills", "show", SKILL, "--json").out)
    assert (shown["state"], shown["episodes"]) == ("broken", 2)
    assert command("check", "other", "--robot", "sim:demo").status == 0
    # Its recordings are in files of their own.
    assert "2 episodes, " in command("dataset", "list", SKILL).out


# The files of a run


@pytest.mark.parametrize("damage", [*JSON, flipped], ids=NAMES.get)
def test_a_broken_run_file_is_named_by_all_that_read_it(place: Place, command: Command, damage: Damage) -> None:
    path = place.run / "run.json"
    if damage is flipped:
        path.write_text(path.read_text().replace('"input_spec"', '"input_spfc"'))
    else:
        damage(path)
    for arguments in (
        ("tree", SKILL),
        ("run", SKILL, "--fast", "--quiet", "--robot", "sim:demo", "--flights-dir", str(place.flights)),
        ("train", "activate", SKILL, RUN),
    ):
        sentence = command(*arguments).sentence
        assert str(path) in sentence
        assert has_remedy(sentence)
    assert not place.flights.exists()
    assert f"problem: {path}" in command("check", SKILL, "--robot", "sim:demo").out


def test_a_broken_run_hides_no_other(place: Place, command: Command) -> None:
    shutil.copytree(place.run, place.skill / "2")
    manifest = read_run(place.skill / "2")
    metrics = {"step": 1, "finished": True, "best": {"l1": 0.25}, "checkpoint": CHECKPOINT}
    write_run(place.skill / "2", manifest.model_copy(update={"metrics": metrics}))
    cut(place.run / "run.json")
    lines = command("train", "list", SKILL).out.splitlines()
    assert len(lines) == 2
    assert str(place.run / "run.json") in lines[0]
    assert lines[1].startswith("2 ")


@pytest.mark.parametrize("damage", [*ANY, flipped], ids=NAMES.get)
@pytest.mark.parametrize("name", [CHECKPOINT, "dataset_stats.pt"])
def test_a_broken_file_of_a_run_is_refused_before_anything_is_loaded(
    place: Place, command: Command, damage: Damage, name: str
) -> None:
    damage(place.run / name)
    said = command("run", SKILL, "--fast", "--quiet", "--robot", "sim:demo", "--flights-dir", str(place.flights))
    assert f"{RUN}/{name}" in said.sentence
    assert has_remedy(said.sentence)
    assert not place.flights.exists()
    assert command("check", SKILL, "--robot", "sim:demo").status == 1
    before = (place.skill / "metadata.json").read_bytes()
    refused = command("train", "activate", SKILL, RUN)
    assert f"{RUN}/{name}" in refused.sentence
    assert has_remedy(refused.sentence)
    assert (place.skill / "metadata.json").read_bytes() == before
    assert "local/press" in command("skills", "list").out


def test_a_run_that_says_nothing_of_itself_is_listed(place: Place, command: Command) -> None:
    for metrics in ({}, {"best": "good", "step": [1]}):
        write_run(place.run, read_run(place.run).model_copy(update={"metrics": metrics}))
        listed = command("train", "list", SKILL)
        assert (listed.status, listed.out.split()[:2]) == (0, [RUN, "unfinished"])


@pytest.mark.parametrize("damage", [cut, other_types], ids=NAMES.get)
def test_a_broken_skill_is_not_trained(place: Place, command: Command, damage: Damage) -> None:
    damage(place.skill / "metadata.json")
    refused = command("train", "run", SKILL, "--run-id", "2")
    assert str(place.skill / "metadata.json") in refused.sentence
    assert not (place.skill / "2").exists()


def test_a_skill_that_learns_nothing_is_not_trained(place: Place, command: Command) -> None:
    (place.skill / "metadata.json").write_text('{"name": "x", "type": "poses", "execution": {"poses": [[0]]}}')
    assert "is a poses skill, expected a learned one" in command("train", "run", SKILL).sentence


# Episodes


@pytest.mark.parametrize("damage", [*(each for each in ANY if each is not gone), flipped], ids=NAMES.get)
def test_a_broken_episode_is_reported_and_hides_no_other(place: Place, command: Command, damage: Damage) -> None:
    assert command("dataset", "check", SKILL).status == 0  # the hashes are known from now on
    damage(place.data / "episode_0.h5")
    checked = command("dataset", "check", SKILL, "--json")
    assert checked.status == 1
    problems = json.loads(checked.out.splitlines()[-1])["problems"]
    assert list(problems) == ["episode_0.h5"]
    assert str(place.data / "episode_0.h5") in problems["episode_0.h5"]
    listed = command("dataset", "list", SKILL)
    assert listed.status == 0
    assert "episode_1.h5" in listed.out
    assert (place.data / "episode_0.h5").exists()
    assert command("dataset", "check", SKILL).status == 1  # nor is it forgotten


@pytest.mark.parametrize("damage", [each for each in JSON if each is not gone], ids=NAMES.get)
def test_broken_labels_are_named(place: Place, command: Command, damage: Damage) -> None:
    labels = place.data / "episode_0.json"
    labels.write_text('{"outcome": "success", "note": "a good one"}')
    damage(labels)
    checked = command("dataset", "check", SKILL, "--json")
    problems = json.loads(checked.out.splitlines()[-1])["problems"]
    assert (checked.status, list(problems)) == (1, ["episode_0.h5"])
    assert str(labels) in problems["episode_0.h5"]
    assert "Correct or remove the file" in problems["episode_0.h5"]


@pytest.mark.parametrize("damage", [gone, empty, cut, noise, other_types, a_list], ids=NAMES.get)
def test_a_broken_index_is_kept_and_made_again(place: Place, command: Command, damage: Damage) -> None:
    index = place.data / "dataset_metadata.json"
    damage(index)
    before = index.read_bytes() if index.exists() else None
    listed = command("dataset", "list", SKILL)
    assert listed.status == 0
    assert "2 episodes, " in listed.out
    checked = command("dataset", "check", SKILL)
    assert checked.status == 0
    for said in (listed.err, checked.err):
        assert said.splitlines() == [line for line in said.splitlines() if str(index) in line]
        assert len(said.splitlines()) == (before is not None)
    assert ("kept beside it as dataset_metadata.json.corrupt-" in checked.err) == (before is not None)
    assert command("dataset", "check", SKILL).err == ""
    assert len(json.loads(index.read_text())["episodes"]) == 2
    copies = [path.read_bytes() for path in place.data.glob("dataset_metadata.json.corrupt-*")]
    assert copies == ([before] if before is not None else [])


def test_an_index_that_cannot_be_read_nor_replaced(place: Place, command: Command) -> None:
    a_directory(place.data / "dataset_metadata.json")
    assert "dataset_metadata.json" in command("dataset", "check", SKILL).sentence
    assert "2 episodes, " in command("dataset", "list", SKILL).out


# As a person starts them


def test_the_trainer_refuses_a_broken_episode(place: Place) -> None:
    cut(place.data / "episode_0.h5")
    ended = ran(place, "train", "run", SKILL, "--run-id", "2", "--set", "device=cpu")
    assert str(place.data / "episode_0.h5") in ended.sentence
    assert "--skip-broken" in ended.sentence
    assert not (place.skill / "2").exists()
    assert "/2/" not in (place.skill / "metadata.json").read_text()


@pytest.mark.parametrize(
    ("file", "arguments"),
    [
        ("skills/press/metadata.json", ("run", SKILL, "--quiet", "--robot", "sim:demo")),
        ("skills/press/1/act_policy_step_1.pth", ("run", SKILL, "--quiet", "--robot", "sim:demo")),
        ("skills/press/1/run.json", ("evaluate", SKILL, "--scenes", "1", "--workers", "1")),
    ],
)
def test_as_a_process_it_is_one_sentence_too(place: Place, file: str, arguments: tuple[str, ...]) -> None:
    cut(place.root / file)
    ended = ran(place, *arguments, program=PROGRAM)
    assert str(place.root / file) in ended.sentence
    assert ended.out == ""
    assert len(ended.err.splitlines()) == 1
