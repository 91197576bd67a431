from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from skills.episodes import Episode, EpisodeWriteError, list_episodes, recover
from skills.episodes.layout import finish
from skills.episodes.superblock import _checksum as superblock_checksum
from skills.episodes.superblock import clear_write_mark

STEPS = 40


def _in_child(work) -> int:
    """Run `work` in a process of its own; returns its exit status, negative for a signal."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _die_at(kill_at: int, doings) -> None:
    """Let this process be killed just before the `kill_at`-th call of one of `doings`: (owner, name) each."""
    count = 0

    def counted(original):
        def call(*args, **kwargs):
            nonlocal count
            count += 1
            if count == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*args, **kwargs)

        return call

    for owner, name in doings:
        setattr(owner, name, counted(getattr(owner, name)))


def _record_and_die_at(kill_at: int, new_writer, step) -> None:
    """Record and finalise; die just before the `kill_at`-th thing that reaches the disk."""
    _die_at(
        kill_at,
        [
            (os, "fdatasync"),
            (os, "fsync"),
            (os, "link"),
            (Path, "unlink"),
            (Path, "replace"),
            (h5py.File, "close"),
            (h5py.File, "flush"),
            (h5py.AttributeManager, "__setitem__"),
        ],
    )
    writer = new_writer()
    for index in range(STEPS):
        writer.append(step(index))
    writer.finalize()


@pytest.mark.parametrize("kill_at", range(1, 36))
def test_a_kill_at_any_moment_loses_only_what_was_not_flushed(kill_at, new_writer, step, tmp_path):
    status = _in_child(lambda: _record_and_die_at(kill_at, new_writer, step))
    assert status in (0, -signal.SIGKILL)
    data_dir = tmp_path / "data"
    files = set(data_dir.glob("*")) if data_dir.exists() else set()
    recover(data_dir)
    assert recover(data_dir) == []
    episodes = list_episodes(data_dir)
    assert [e.problem for e in episodes] == [None] * len(episodes)
    assert len(episodes) <= 1
    assert not list(data_dir.glob(".recording-*"))
    assert not list(data_dir.glob(".recovering-*"))
    if not episodes:
        kept = list(data_dir.glob(".quarantine/*.h5"))
        assert len(kept) == sum(f.suffix == ".h5" for f in files)
        return
    with Episode(data_dir / "episode_0.h5") as episode:
        assert len(episode) in (15, 30, STEPS)
        assert episode.action[:, 0] == pytest.approx(np.arange(len(episode)) / 10)
        assert episode.action[-1, 4:].tolist() == [1.0, 1.0]
        for index, frame in enumerate(episode.frames("main_camera")):
            assert (frame == step(index).images["main_camera"]).all()
    if status == 0:
        assert len(episodes) == 1
        assert episodes[0].length == STEPS
        assert episodes[0].recovered is None


def test_a_kill_between_any_two_writes_of_finishing_loses_nothing(new_writer, step, tmp_path, monkeypatch):
    """Which of the changed bytes reached the file is tried out: each prefix, each alone, all but each."""
    pictures = []

    def pictured(path: Path, end_utc: object) -> None:
        pictures.append(path.read_bytes())
        finish(path, end_utc)  # type: ignore[arg-type]
        pictures.append(path.read_bytes())

    monkeypatch.setattr("skills.episodes.writer.finish", pictured)
    writer = new_writer()
    for index in range(20):
        writer.append(step(index))
    writer.finalize()
    before, after = pictures
    before_padded = before.ljust(len(after), b"\0")
    changed = [at for at in range(0, len(after), 8) if before_padded[at : at + 8] != after[at : at + 8]]
    starts = [at for at in changed if at - 8 not in changed]
    ranges = [(at, next(end for end in range(at, len(after) + 8, 8) if end not in changed)) for at in starts]
    assert ranges
    for number, chosen in enumerate(
        [ranges[:k] for k in range(len(ranges))]
        + [[r] for r in ranges]
        + [[r for r in ranges if r != o] for o in ranges]
    ):
        content = bytearray(before_padded)
        for at, end in chosen:
            content[at:end] = after[at:end]
        content[:48] = _marked(after[:48])
        data_dir = tmp_path / str(number)
        data_dir.mkdir()
        (data_dir / ".recording-x.h5").write_bytes(content)
        (result,) = recover(data_dir)
        assert result.steps == 20, result.reason


def _marked(superblock: bytes) -> bytes:
    """The first bytes of a file that is open for writing."""
    block = bytearray(superblock)
    block[11] = 1
    return bytes(block[:44]) + superblock_checksum(bytes(block[:44])).to_bytes(4, "little")


def test_a_recovered_episode_says_why_and_keeps_the_original(new_writer, step, tmp_path):
    writer = new_writer()
    for index in range(20):
        writer.append(step(index))
    writer.close()
    (result,) = recover(tmp_path / "data")
    assert result.episode == tmp_path / "data" / "episode_0.h5"
    assert result.steps == 20
    assert result.original == tmp_path / "data" / ".trash" / writer.path.name.lstrip(".")
    assert result.original.exists()
    with Episode(result.episode) as episode:
        assert "20 steps were complete" in str(episode.recovered)
        assert episode.end_utc is not None
        assert episode.camera_names == ("main_camera", "arm_camera")
    (summary,) = list_episodes(tmp_path / "data")
    assert summary.recovered


def test_a_live_recording_is_left_alone(new_writer, step, tmp_path):
    code = (
        "import sys; from pathlib import Path; from skills.episodes import recover;"
        "print(len(recover(Path(sys.argv[1]))))"
    )
    writer = new_writer()
    writer.append(step(0))
    assert recover(tmp_path / "data") == []
    run = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "data"],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == "0"
    assert writer.path.exists()
    with Episode(writer.finalize()) as episode:
        assert len(episode) == 1


@pytest.mark.parametrize("content", [b"", b"not HDF5", None])
def test_what_cannot_be_read_goes_to_quarantine_with_the_reason(content, new_writer, step, tmp_path):
    writer = new_writer()
    if content is None:  # A readable file without a single complete step.
        content = writer.path.read_bytes()
    writer.discard()
    writer.path.write_bytes(content)
    (result,) = recover(tmp_path / "data")
    assert result.episode is None
    assert result.original.parent == tmp_path / "data" / ".quarantine"
    assert result.original.read_bytes()[48:] == content[48:]
    reason = result.original.with_name(result.original.name + ".reason.txt").read_text()
    assert "nothing was deleted" in reason
    assert str(writer.path) in reason
    assert not list((tmp_path / "data").glob("*.h5"))


def test_a_file_cut_short_keeps_what_was_complete_or_goes_to_quarantine(new_writer, step, tmp_path):
    writer = new_writer()
    for index in range(30):
        writer.append(step(index))
    writer.close()
    content = writer.path.read_bytes()
    for cut in range(0, len(content), len(content) // 8):
        writer.path.write_bytes(content[:cut])
        (result,) = recover(tmp_path / "data")
        assert result.original.exists()
        if result.episode is not None:
            with Episode(result.episode) as episode:
                assert len(episode) == 30


def test_quarantine_and_trash_replace_nothing(tmp_path):
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    for content in (b"one", b"two", b"three"):
        (data_dir / ".recording-x.h5").write_bytes(content)
        recover(data_dir)
    assert sorted(f.read_bytes() for f in (data_dir / ".quarantine").glob("*.h5")) == [b"one", b"three", b"two"]


@pytest.mark.parametrize("kill_at", range(1, 14))
def test_a_kill_during_recovery_makes_no_second_episode(kill_at, new_writer, step, tmp_path):
    writer = new_writer()
    for index in range(20):
        writer.append(step(index))
    writer.close()
    data_dir = tmp_path / "data"

    def recover_and_die() -> None:
        doings = [(os, "fsync"), (os, "link"), (Path, "unlink"), (Path, "replace"), (h5py.File, "close")]
        _die_at(kill_at, doings)
        recover(data_dir)

    _in_child(recover_and_die)
    recover(data_dir)
    (summary,) = list_episodes(data_dir)
    assert (summary.length, summary.problem) == (20, None)
    assert [f.name for f in (data_dir / ".trash").iterdir()] == [writer.path.name.lstrip(".")]
    assert not list(data_dir.glob(".recov*"))


def test_a_disk_that_fills_up_loses_only_the_tail(new_writer, step, tmp_path):
    """The limit on a file's size stands in for a full disk: HDF5 sees the same failing write."""

    def record_until_full() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, resource.RLIM_INFINITY))
        writer = new_writer()
        try:
            for index in range(500):
                writer.append(step(index % 200))
        except EpisodeWriteError:
            os._exit(7)

    status = _in_child(lambda: record_until_full())
    assert status != 0
    (result,) = recover(tmp_path / "data")
    assert result.episode is not None
    with Episode(result.episode) as episode:
        assert len(episode) >= 15
        assert len(episode) % 15 == 0
        assert all((f == step(i).images["main_camera"]).all() for i, f in enumerate(episode.frames("main_camera")))


def test_without_room_for_the_copy_the_recording_stays(new_writer, step, tmp_path, monkeypatch):
    writer = new_writer()
    writer.append(step(0))
    writer.close()
    before = writer.path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("skills.episodes.recovery.write_steps", full)
    (result,) = recover(tmp_path / "data")
    assert (result.episode, result.original) == (None, writer.path)
    assert "No space left" in result.reason
    assert writer.path.read_bytes() == before
    assert {p.name for p in (tmp_path / "data").iterdir()} == {writer.path.name}
    monkeypatch.undo()
    assert recover(tmp_path / "data")[0].steps == 1


def test_where_nothing_is_there_is_nothing_to_do(tmp_path):
    assert recover(tmp_path / "data") == []
    assert not (tmp_path / "data").exists()


def test_only_a_mark_is_cleared(record, tmp_path):
    path = record(2)
    before = path.read_bytes()
    assert not clear_write_mark(path)
    for content in (b"", b"text", before[:8] + bytes(40)):
        other = tmp_path / "other"
        other.write_bytes(content)
        assert not clear_write_mark(other)
        assert other.read_bytes() == content
    assert path.read_bytes() == before
