"""A disk that is full, and a limit on the size of files: a sentence, and nothing recorded is lost or misnamed."""

from __future__ import annotations

import resource
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from processes import PROGRAM, SKILL, TINY_TRAINING, Ended, Place, ran

from btruntime.flight import read_flight
from skills.episodes import Episode, list_episodes, recover

# What is on the small disk when the command has ended is copied to where it can be looked at.
_ON_SMALL_DISK = """
set -e
mount -t tmpfs -o size=64m none "$1"
cp -a "$2/." "$1"
used=$(df -k --output=used "$1" | tail -1)
mount -o remount,size=$((used + $3))k "$1"
after="$4"
root="$1"
shift 4
set +e
cd "$root"
"$@"
status=$?
cp -a "$root/." "$after"
exit $status
"""


def _namespaces() -> str | None:
    """Why no disk can be mounted here; None where it can."""
    if shutil.which("unshare") is None:
        return "there is no unshare"
    probe = subprocess.run(
        ["unshare", "-rm", "sh", "-c", "mount -t tmpfs -o size=1m none /mnt"], capture_output=True, text=True
    )
    return None if probe.returncode == 0 else f"no namespaces: {probe.stderr.strip()}"


@pytest.fixture(scope="module")
def _may_mount() -> None:
    if (reason := _namespaces()) is not None:
        pytest.skip(reason)


OnSmallDisk = Callable[..., tuple[Ended, Place]]


@pytest.fixture
def on_small_disk(_may_mount: None, place: Place, tmp_path: Path) -> OnSmallDisk:
    """Runs a command in the place, moved to a disk with so many KiB to spare; gives the place as it is afterwards."""

    def run(spare_kib: int, *arguments: str) -> tuple[Ended, Place]:
        full, after = Place(tmp_path / "full"), Place(tmp_path / "after")
        for each in (full, after):
            each.root.mkdir()
        shell = ("unshare", "-rm", "sh", "-c", _ON_SMALL_DISK, "sh")
        sizes = (str(full.root), str(place.root), str(spare_kib), str(after.root))
        return ran(full, *arguments, prefix=(*shell, *sizes), program=PROGRAM), after

    return run


def limited(size: int) -> Callable[[], None]:
    """Before the program starts: no file may become larger."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def stray(root: Path) -> list[Path]:
    """Files that something was to be written to and that nobody will finish."""
    return [path for path in root.rglob("*.tmp") if path.is_file()]


def the_same(before: Place, after: Place, *names: str) -> None:
    """What was there is there, byte for byte."""
    for name in names:
        assert (after.root / name).read_bytes() == (before.root / name).read_bytes(), name


EPISODES = ("skills/press/data/episode_0.h5", "skills/press/data/episode_1.h5")


def test_recording_onto_a_disk_that_fills_up(place: Place, on_small_disk: OnSmallDisk) -> None:
    ended, after = on_small_disk(8 << 10, "record", SKILL, "--episodes", "2")
    assert "MiB free" in ended.sentence
    assert "Free some space." in ended.sentence
    the_same(place, after, *EPISODES)
    assert [each.file_name for each in list_episodes(after.data)] == ["episode_0.h5", "episode_1.h5"]
    # Whatever had been recorded is an episode once there is room again.
    unfinished = list(after.data.glob(".recording-*.h5"))
    found = recover(after.data)
    assert len(found) == len(unfinished)
    for each in found:
        assert each.episode is not None, each.reason
        with Episode(each.episode) as episode:
            assert len(episode) == each.steps > 0


def test_a_run_whose_record_does_not_fit(on_small_disk: OnSmallDisk) -> None:
    ended, after = on_small_disk(8, "run", "wave", "--fast", "--quiet", "--robot", "sim:demo")
    assert (ended.status, ended.err.count("\n")) == (0, 1)  # the robot did what it was to do
    assert "done" in ended.out
    assert ended.err.startswith("btruntime: warning: ")
    assert "No space left on device. Free some space" in ended.err
    flight = read_flight(after.flight())
    assert flight.result is None
    assert flight.run["target"] == "wave"


def test_a_run_whose_record_cannot_be_begun_does_not_move(on_small_disk: OnSmallDisk) -> None:
    ended, after = on_small_disk(0, "run", "wave", "--fast", "--quiet", "--robot", "sim:demo")
    assert "flights" in ended.sentence
    assert "No space left on device. Free some space" in ended.sentence
    assert not list(after.flights.glob("*"))


@pytest.mark.parametrize("break_index", [True, False], ids=["no index", "sound index"])
def test_the_index_on_a_full_disk(place: Place, on_small_disk: OnSmallDisk, break_index: bool) -> None:
    index = place.data / "dataset_metadata.json"
    if break_index:
        index.unlink()
    ended, after = on_small_disk(0, "dataset", "check", SKILL)
    the_same(place, after, *EPISODES)
    assert not stray(after.root)
    if break_index:
        assert "dataset_metadata.json: No space left on device. Free some space and try again." in ended.sentence
        assert not (after.data / index.name).exists()
    else:
        assert ended.status == 0
        the_same(place, after, "skills/press/data/dataset_metadata.json")


@pytest.mark.slow
def test_training_on_a_full_disk(place: Place, on_small_disk: OnSmallDisk) -> None:
    ended, after = on_small_disk(64, "train", "run", SKILL, "--run-id", "2", *TINY_TRAINING)
    assert "MiB free" in ended.sentence
    the_same(place, after, "skills/press/metadata.json", "skills/press/1/act_policy_step_1.pth", *EPISODES)
    assert not (after.skill / "2").exists()


def test_metadata_on_a_full_disk(place: Place, on_small_disk: OnSmallDisk) -> None:
    ended, after = on_small_disk(0, "train", "activate", SKILL, "1")
    assert "metadata.json: No space left on device. Free some space and try again." in ended.sentence
    the_same(place, after, "skills/press/metadata.json")
    assert not stray(after.root)


# A limit on the size of a file works where no disk can be mounted, and refuses in the middle of a file


@pytest.mark.slow
def test_a_checkpoint_that_may_not_be_written(place: Place) -> None:
    before = (place.skill / "metadata.json").read_bytes()
    # Room for the frames, and not for the weights.
    settings = (*TINY_TRAINING, "--set", "dim_feedforward=4096")
    ended = ran(place, "train", "run", SKILL, "--run-id", "2", *settings, prepare=limited(400_000))
    assert "act_policy_step_2.pth cannot be written" in ended.sentence
    assert "Free some space" in ended.sentence
    assert (place.skill / "metadata.json").read_bytes() == before
    assert not list((place.skill / "2").glob("*.pth"))
    assert not stray(place.root)


def test_a_flight_record_that_may_not_grow(place: Place) -> None:
    ended = ran(place, "run", "wave", "--fast", "--quiet", "--robot", "sim:demo", prepare=limited(2_000))
    assert ended.status == 0
    assert "File too large" in ended.err
    assert read_flight(place.flight()).result is None


def test_an_index_that_may_not_be_written(place: Place) -> None:
    (place.data / "dataset_metadata.json").unlink()
    ended = ran(place, "dataset", "check", SKILL, prepare=limited(500))
    assert "dataset_metadata.json: File too large. Free some space" in ended.sentence
    assert not (place.data / "dataset_metadata.json").exists()
    assert not stray(place.root)
