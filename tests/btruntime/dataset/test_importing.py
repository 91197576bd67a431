"""Importing a dataset: what is there stays, what stopped goes on, what cannot be used is told."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from episode_bench import CAMERA, make_header, make_rows, pictures, save, write_video

from btruntime.cli.main import main
from btruntime.dataset.importing import ImportReport, import_dataset
from btruntime.dataset.source import DatasetError, SourceEpisode
from skills.episodes import DiskFullError, Episode, Origin, list_episodes
from skills.episodes import saving as saving_module
from skills.store import SkillStore

from .formats.conftest import LeRobot

STEPS = 5


class Dataset:
    """Episodes 3, 4 and 7; 5 is listed and not there. `broken` are there and cannot be read."""

    format, name, task = "made-up 1", "cups", "pick up the cup"
    notes = ("a guess for all",)

    def __init__(self, video: Path | None = None):
        self.present: tuple[int, ...] = (3, 4, 7)
        self.missing: Mapping[int, str] = {5: "episode 5: its file is not there."}
        self.broken: set[int] = set()
        self.headers: dict[int, dict[str, object]] = {}
        self.frames: dict[int, list[np.ndarray]] = {}
        self.video = video
        self.read_numbers: list[int] = []

    def read(self, number: int) -> SourceEpisode:
        self.read_numbers.append(number)
        if number in self.broken:
            raise DatasetError(f"episode {number}: its table is damaged.")
        origin = Origin(format=self.format, dataset=self.name, episode=number, notes=(f"a guess for {number % 2}",))
        header = make_header(origin=origin, **self.headers.get(number, {}))
        if self.video is not None:
            return SourceEpisode(header, make_rows(STEPS), videos={CAMERA: self.video})
        given = self.frames.get(number, list(pictures(STEPS)))
        return SourceEpisode(header, make_rows(STEPS), frames={CAMERA: lambda: given})


@pytest.fixture
def store(tmp_path: Path) -> SkillStore:
    return SkillStore(tmp_path / "skills", tmp_path / "no-builtins")


Import = Callable[..., ImportReport]


def names(store: SkillStore, skill: str = "cups") -> list[str]:
    return [each.file_name for each in list_episodes(store.get(skill).data_dir)]


def assert_no_skill(store: SkillStore) -> None:
    assert store.scan() == []
    assert not store.user_dir.exists() or list(store.user_dir.iterdir()) == []


def test_a_new_skill_gets_the_episodes_their_numbers_and_the_task(store: SkillStore) -> None:
    told: list[tuple[int, str]] = []
    report = import_dataset(Dataset(), store, "cups", progress=lambda number, note: told.append((number, note)))
    assert names(store) == ["episode_3.h5", "episode_4.h5", "episode_7.h5"]
    assert [(each.number, each.path.name, each.steps, each.before) for each in report.episodes] == [
        (number, f"episode_{number}.h5", STEPS, False) for number in (3, 4, 7)
    ]
    assert told == [(number, f"episode_{number}.h5") for number in (3, 4, 7)]
    assert dict(report.missing) == {5: "episode 5: its file is not there."}
    assert report.notes == ("a guess for all", "a guess for 1", "a guess for 0")
    entry = store.get("cups")
    assert report.skill == entry
    assert entry.kind == "learned"
    assert entry.metadata is not None
    assert entry.metadata.guidelines == "pick up the cup"


def test_a_second_time_nothing_is_read_or_written(store: SkillStore) -> None:
    import_dataset(Dataset(), store, "cups")
    files = {path: path.stat().st_mtime_ns for path in store.get("cups").path.rglob("*")}
    again = Dataset()
    report = import_dataset(again, store, "cups")
    assert again.read_numbers == []
    assert [each.before for each in report.episodes] == [True] * 3
    assert {path: path.stat().st_mtime_ns for path in store.get("cups").path.rglob("*")} == files


def test_a_stopped_import_goes_on_with_the_rest(store: SkillStore) -> None:
    done: list[int] = []
    report = import_dataset(
        Dataset(), store, "cups", progress=lambda number, _: done.append(number), cancelled=lambda: len(done) == 2
    )
    assert report.cancelled
    assert names(store) == ["episode_3.h5", "episode_4.h5"]
    rest = Dataset()
    report = import_dataset(rest, store, "cups")
    assert not report.cancelled
    assert rest.read_numbers == [7]
    assert [each.before for each in report.episodes] == [True, True, False]


def test_an_import_that_is_stopped_at_once_makes_no_skill(store: SkillStore) -> None:
    report = import_dataset(Dataset(), store, "cups", cancelled=lambda: True)
    assert (report.skill, report.episodes, report.cancelled) == (None, (), True)
    assert_no_skill(store)


def test_an_episode_whose_number_is_taken_gets_the_next_and_is_known_again(store: SkillStore) -> None:
    data_dir = store.create("cups").data_dir
    save(data_dir, 3, number=4)
    report = import_dataset(Dataset(), store, "cups")
    assert [each.path.name for each in report.episodes] == ["episode_3.h5", "episode_5.h5", "episode_7.h5"]
    with Episode(data_dir / "episode_5.h5") as episode:
        assert episode.header.origin is not None
        assert episode.header.origin.episode == 4
    assert len(import_dataset(Dataset(), store, "cups").episodes) == 3
    assert len(names(store)) == 4


def test_what_cannot_be_used_is_told_and_left_out(store: SkillStore) -> None:
    dataset = Dataset()
    dataset.broken, dataset.frames = {3}, {4: list(pictures(STEPS - 1))}
    report = import_dataset(dataset, store, "cups")
    assert dict(report.refused) == {
        3: "episode 3: its table is damaged.",
        4: "episode 4: top gave 4 frames, expected 5, one per step.",
    }
    assert names(store) == ["episode_7.h5"]


@pytest.mark.parametrize("how", ["unreadable", "frames missing"])
def test_without_a_usable_episode_there_is_no_new_skill_and_an_old_one_stays(store: SkillStore, how: str) -> None:
    dataset = Dataset()
    if how == "unreadable":
        dataset.broken = {3, 4, 7}
    else:
        dataset.frames = {number: [] for number in dataset.present}
    report = import_dataset(dataset, store, "cups")
    assert (report.skill, report.episodes, len(report.refused)) == (None, (), 3)
    assert_no_skill(store)
    store.create("cups")
    report = import_dataset(dataset, store, "cups")
    assert report.skill is not None
    assert store.get("cups").path.is_dir()


def test_a_full_disk_ends_the_import(store: SkillStore, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = Dataset()
    monkeypatch.setattr(saving_module, "MIN_FREE_BYTES", 1 << 60)
    with pytest.raises(DiskFullError, match="Free some space"):
        import_dataset(dataset, store, "cups")
    assert dataset.read_numbers == [3]
    assert_no_skill(store)


def test_a_video_is_copied_and_not_touched(store: SkillStore, tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.mp4", STEPS)
    before = video.stat()
    import_dataset(Dataset(video), store, "cups")
    assert (store.get("cups").data_dir / "episode_7_top.mp4").read_bytes() == video.read_bytes()
    assert (video.stat().st_mtime_ns, video.stat().st_nlink) == (before.st_mtime_ns, 1)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"data_frequency_hz": 7.0}, "data_frequency is 7.0, expected 10.0 as in episode_3.h5"),
        ({"joint_names": ("elbow", "shoulder")}, "joints is elbow, shoulder, expected shoulder, elbow"),
        ({"cameras": ()}, "cameras is "),
    ],
)
def test_another_kind_ends_the_import(store: SkillStore, change: dict[str, object], says: str) -> None:
    dataset = Dataset()
    dataset.headers = {4: change}
    with pytest.raises(DatasetError, match=says):
        import_dataset(dataset, store, "cups")
    assert names(store) == ["episode_3.h5"]


def test_numbers_choose_and_unknown_ones_are_refused(store: SkillStore) -> None:
    report = import_dataset(Dataset(), store, "cups", numbers=(7, 5))
    assert names(store) == ["episode_7.h5"]
    assert list(report.missing) == [5]
    for numbers, says in (((3, 9, 8), "cups has no episode 8, 9"), ((5,), "none of its episodes is there. episode 5")):
        with pytest.raises(DatasetError, match=says):
            import_dataset(Dataset(), SkillStore(store.user_dir / "other"), "cups", numbers=numbers)
    assert not (store.user_dir / "other").exists()


def test_only_a_learned_skill_takes_demonstrations(store: SkillStore) -> None:
    store.create("wave", "replay")
    with pytest.raises(DatasetError, match="local/wave is a replay skill; demonstrations belong into a learned one"):
        import_dataset(Dataset(), store, "wave")
    (store.user_dir / "code.py").write_text("")
    with pytest.raises(DatasetError, match="is a code skill"):
        import_dataset(Dataset(), store, "code")
    broken = store.create("broken").path
    (broken / "metadata.json").write_text("{")
    with pytest.raises(DatasetError, match=r"cannot take episodes: .*metadata\.json"):
        import_dataset(Dataset(), store, "broken")
    assert not (broken / "data").exists()


# The command


@pytest.fixture
def cups(tmp_path: Path) -> LeRobot:
    return LeRobot(tmp_path / "cups")


def ran(capsys: pytest.CaptureFixture[str], tmp_path: Path, *arguments: object) -> tuple[int, str, str]:
    words = ["dataset", "import", tmp_path / "cups", "--skill", "s", "--skills-dir", tmp_path / "skills", *arguments]
    status = main([str(word) for word in words])
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    return status, out, err


def test_the_command_and_its_object(cups: LeRobot, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cups.add(0).add(1).add(2).write()
    cups.video_path(1).unlink()
    cups.table_path(2).write_bytes(b"no table")
    status, out, err = ran(capsys, tmp_path, "--json")
    found = json.loads(out.splitlines()[-1])
    assert status == 1
    assert found["episodes"] == [{"number": 0, "file": "episode_0.h5", "steps": 12}]
    assert (found["skill"], found["missing"], list(found["refused"])) == ("local/s", [1], ["2"])
    assert "left out: " in err
    assert "1 of 3 episodes are not there: 1" in err
    status, out, err = ran(capsys, tmp_path, "--episodes", "0")
    assert status == 0
    assert "1 episodes, 1 of them from before are in" in out


def test_numbers_that_are_unknown_leave_nothing(
    cups: LeRobot, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cups.add(0).write()
    status, _, err = ran(capsys, tmp_path, "--episodes", "0-3")
    assert (status, "has no episode 1, 2, 3" in err) == (1, True)
    cups.table_path(0).write_bytes(b"no table")
    status, out, _ = ran(capsys, tmp_path, "--json")
    assert status == 1
    assert json.loads(out.splitlines()[-1])["skill"] is None
    assert not (tmp_path / "skills").exists() or list((tmp_path / "skills").iterdir()) == []


def test_ctrl_c_ends_it_after_the_episode_and_it_goes_on(
    cups: LeRobot, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from btruntime.dataset import importing

    cups.add(0).add(1).write()
    with monkeypatch.context() as patched:
        saved = importing._saved

        def interrupted(*arguments: object) -> object:
            os.kill(os.getpid(), signal.SIGINT)
            return saved(*arguments)  # type: ignore[arg-type]

        patched.setattr(importing, "_saved", interrupted)
        status, _, err = ran(capsys, tmp_path)
    assert status == 130
    assert "the same command goes on with the rest" in err
    assert len(list_episodes(tmp_path / "skills" / "s" / "data")) == 1
    status, out, _ = ran(capsys, tmp_path)
    assert (status, "2 episodes, 1 of them from before" in out) == (0, True)
