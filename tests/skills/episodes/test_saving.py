"""Saving a whole episode: kills at every step, rivals for its number, full disks, and what does not fit."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from episode_bench import CAMERA, HEIGHT, WIDTH, make_header, make_rows, pictures, save, write_video

from foundation.files import sha256_of
from skills.episodes import (
    CameraShape,
    DiskFullError,
    Episode,
    EpisodeError,
    EpisodeWriteError,
    check_episodes,
    list_episodes,
    save_episode,
)
from skills.episodes import saving as saving_module
from skills.episodes.naming import adopt, episode_videos

STEPS = 8
DOINGS = [
    (os, "fsync"),
    (os, "link"),
    (Path, "unlink"),
    (Path, "replace"),
    (Path, "open"),
    (h5py.File, "close"),
    (h5py.AttributeManager, "__setitem__"),
    (shutil, "copyfileobj"),
]


@pytest.fixture
def video(tmp_path: Path) -> Path:
    return write_video(tmp_path / "source.mp4", STEPS)


def in_child(work: Callable[[], object]) -> int:
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


def counted(happens: Callable[[int], None]) -> None:
    """Let `happens` be told the number of each call of `DOINGS`, before it is done."""
    calls = iter(range(1, 10**6))

    def wrapped(original: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object, **kwargs: object) -> object:
            happens(next(calls))
            return original(*args, **kwargs)

        return call

    for owner, name in DOINGS:
        setattr(owner, name, wrapped(getattr(owner, name)))


def hidden(data_dir: Path) -> list[str]:
    return [path.name for path in data_dir.glob(".saving-*") if path.suffix != "" and path.name != ".saving-lock"]


def assert_whole(data_dir: Path, count: int) -> None:
    """So many episodes, each with its own video, and no video beside."""
    summaries = check_episodes(data_dir)
    assert [each.problem for each in summaries] == [None] * count
    assert episode_videos(data_dir) == {each.episode_id: each.video_files for each in summaries}
    assert all(len(each.video_files) == 1 for each in summaries)


def test_a_kill_at_any_step_leaves_no_episode_or_a_whole_one(video: Path, tmp_path: Path) -> None:
    before = sha256_of(video)
    states, kill_at, status = set(), 0, -signal.SIGKILL
    while status:
        kill_at += 1
        data_dir = tmp_path / f"data-{kill_at}"

        def save_and_die(kill_at: int = kill_at, data_dir: Path = data_dir) -> None:
            counted(lambda call: os.kill(os.getpid(), signal.SIGKILL) if call == kill_at else None)
            save(data_dir, STEPS, video=video, number=5)

        status = in_child(save_and_die)
        assert status in (0, -signal.SIGKILL)
        found = list_episodes(data_dir)
        assert [each.problem for each in found] == [None] * len(found)
        for each in found:
            with Episode(data_dir / each.file_name) as episode:
                assert episode.frame(CAMERA, -1).shape == (HEIGHT, WIDTH, 3)
        states.add((len(found), bool(hidden(data_dir)), bool(episode_videos(data_dir))))
        wanted = save(data_dir, STEPS, video=video, number=5)
        assert wanted.name == ("episode_6.h5" if found else "episode_5.h5")
        assert hidden(data_dir) == []
        assert_whole(data_dir, len(found) + 1)
        shutil.rmtree(data_dir)
    assert kill_at > 15
    # Among them: nothing named, only the video named, all named with the hidden names still there, and done.
    assert states >= {(0, True, False), (0, True, True), (1, True, True), (1, False, True)}
    assert sha256_of(video) == before


def test_an_error_at_any_step_leaves_nothing_behind(video: Path, tmp_path: Path) -> None:
    """As a disk that is gone, or Ctrl-C."""
    for error in (OSError(5, "Input/output error"), KeyboardInterrupt()):
        fail_at, status = 0, 3
        while status:
            fail_at += 1
            data_dir = tmp_path / f"{type(error).__name__}-{fail_at}"

            def save_and_fail(fail_at: int = fail_at, data_dir: Path = data_dir, error: BaseException = error) -> None:
                def raise_at(call: int) -> None:
                    if call == fail_at:
                        raise error

                counted(raise_at)
                try:
                    save(data_dir, STEPS, video=video)
                except type(error):
                    os._exit(3)
                except EpisodeWriteError as failed:
                    os._exit(4 if "Is the disk full or gone?" in str(failed) else 5)

            status = in_child(save_and_fail)
            assert status in (0, 3, 4)
            found = list_episodes(data_dir)
            assert set(episode_videos(data_dir)) == {each.episode_id for each in found}
            save(data_dir, STEPS, video=video)
            assert hidden(data_dir) == []
            assert_whole(data_dir, len(found) + 1)
            shutil.rmtree(data_dir)
        assert fail_at > 12


def test_a_number_that_anything_has_is_not_given_again(video: Path, tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    assert save(data_dir, STEPS, number=3).name == "episode_3.h5"
    assert save(data_dir, STEPS, video=video, number=3).name == "episode_4.h5"
    assert save(data_dir, STEPS, number=0).name == "episode_0.h5"
    assert save(data_dir, STEPS).name == "episode_5.h5"
    for name in ("episode_7.json", "episode_8_top.mp4"):
        (data_dir / name).write_text("{}")
    assert save(data_dir, STEPS, number=7).name == "episode_9.h5"
    assert save(data_dir, STEPS, number=8).name == "episode_10.h5"
    # Nobody would find an episode of such a number.
    assert save(data_dir, STEPS, number=10**9).name == "episode_11.h5"
    assert save(data_dir, STEPS, number=-1).name == "episode_12.h5"
    assert len(list_episodes(data_dir)) == 8


@pytest.mark.parametrize("moment", [1, 2])
def test_a_recorder_that_takes_the_number_meanwhile_keeps_it(
    video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    """Before the video is named, or between the video and the episode."""
    data_dir = tmp_path / "data"
    recorded = save(tmp_path / "elsewhere", 3)
    content = recorded.read_bytes()
    link, calls = os.link, []

    def rival_first(source: object, target: object) -> None:
        calls.append(target)
        if len(calls) == moment:
            os.rename(recorded, data_dir / "episode_0.h5")
        link(source, target)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "link", rival_first)
    mine = save(data_dir, STEPS, video=video)
    assert mine.name == "episode_1.h5"
    assert (data_dir / "episode_0.h5").read_bytes() == content
    assert episode_videos(data_dir) == {1: ("episode_1_top.mp4",)}
    assert hidden(data_dir) == []
    assert [each.problem for each in check_episodes(data_dir)] == [None, None]


def test_a_kill_after_a_recorder_took_the_number_leaves_it_alone(video: Path, tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    recorded = save(tmp_path / "elsewhere", 3)

    def save_and_die() -> None:
        link, calls = os.link, []

        def rival_first(source: object, target: object) -> None:
            calls.append(target)
            if len(calls) == 2:
                os.rename(recorded, data_dir / "episode_0.h5")
                os.kill(os.getpid(), signal.SIGKILL)
            link(source, target)  # type: ignore[arg-type]

        os.link = rival_first  # type: ignore[assignment]
        save(data_dir, STEPS, video=video)

    assert in_child(save_and_die) == -signal.SIGKILL
    assert episode_videos(data_dir) == {0: ("episode_0_top.mp4",)}
    assert save(data_dir, STEPS, video=video).name == "episode_1.h5"
    assert episode_videos(data_dir) == {1: ("episode_1_top.mp4",)}
    assert [each.problem for each in check_episodes(data_dir)] == [None, None]


def test_where_links_cannot_be_made_files_are_moved(
    video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", no_links)
    data_dir = tmp_path / "data"
    save(data_dir, STEPS, video=video)
    recorded = save(tmp_path / "elsewhere", 3)
    replace, calls = Path.replace, []

    def rival_first(source: Path, target: Path) -> Path:
        calls.append(target)
        if len(calls) == 1:
            adopt(recorded, data_dir)
        return replace(source, target)

    monkeypatch.setattr(Path, "replace", rival_first)
    assert save(data_dir, STEPS, video=video, number=1).name == "episode_1.h5"
    monkeypatch.undo()
    assert hidden(data_dir) == []
    assert episode_videos(data_dir) == {0: ("episode_0_top.mp4",), 1: ("episode_1_top.mp4",)}
    assert len(list_episodes(data_dir)) == 3


def test_two_savers_at_once_take_turns(video: Path, tmp_path: Path) -> None:
    data_dir, children = tmp_path / "data", []
    for _ in range(2):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                for _ in range(4):
                    save(data_dir, STEPS, video=video, number=1)
                status = 0
            finally:
                os._exit(status)
        children.append(child)
    threads = [threading.Thread(target=save, args=(data_dir, STEPS), kwargs={"video": video}) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0]
    assert_whole(data_dir, 11)


@pytest.mark.parametrize("limit", [700, 3000, 20_000])
def test_a_full_disk_leaves_nothing_and_says_so(video: Path, tmp_path: Path, limit: int) -> None:
    """The limit on a file's size stands in for a full disk: the video, the numbers, or the frames do not fit."""
    data_dir = tmp_path / "data"
    save(data_dir, STEPS, video=video)
    kept = sorted(path.name for path in data_dir.iterdir())

    def save_too_much() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        try:
            save(data_dir, STEPS, video=video if limit < 20_000 else None)
        except EpisodeWriteError as error:
            os._exit(7 if str(data_dir) in str(error) and "Is the disk full or gone?" in str(error) else 8)

    assert in_child(save_too_much) == 7
    assert sorted(path.name for path in data_dir.iterdir()) == kept
    save(data_dir, STEPS)
    assert len(list_episodes(data_dir)) == 2


def test_without_room_nothing_is_begun(video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saving_module, "MIN_FREE_BYTES", 1 << 60)
    with pytest.raises(DiskFullError, match=r"MiB free, this episode needs .* Free some space\."):
        save(tmp_path / "data", STEPS, video=video)
    assert [path.name for path in (tmp_path / "data").iterdir()] == [".saving-lock"]


def test_what_was_saved_is_what_was_given(video: Path, tmp_path: Path) -> None:
    rows = make_rows(STEPS)
    for path in (save(tmp_path / "data", STEPS, video=video), save(tmp_path / "data", STEPS)):
        with Episode(path) as episode:
            assert len(episode) == STEPS
            for name, values in rows.items():
                assert np.array_equal(episode.column(name), values)
            assert episode.end_utc is not None
            assert (episode.end_utc - episode.header.start_utc).total_seconds() == pytest.approx(0.7, abs=1e-3)
            if not episode.header.videos:
                assert all(map(np.array_equal, episode.frames(CAMERA), pictures(STEPS)))
    assert (tmp_path / "data" / "episode_0_top.mp4").read_bytes() == video.read_bytes()


def wrong(what: str, video: Path) -> dict[str, object]:
    """Arguments of `save_episode` with one thing wrong."""
    rows, header = make_rows(STEPS), make_header()
    given: dict[str, object] = {"header": header, "rows": rows, "frames": {CAMERA: pictures(STEPS)}}
    frames = list(pictures(STEPS))
    if what == "too short":
        given["frames"] = {CAMERA: iter(frames[:-1])}
    elif what == "too long":
        given["frames"] = {CAMERA: iter([*frames, frames[0]])}
    elif what == "no frames":
        given["frames"] = {CAMERA: []}
    elif what == "other shape":
        given["frames"] = {CAMERA: [*frames[:3], frames[3][:, 1:], *frames[4:]]}
    elif what == "other type":
        given["frames"] = {CAMERA: [frame.astype(np.float32) for frame in frames]}
    elif what == "no camera":
        given["frames"] = {}
    elif what == "video of nothing":
        given["videos"] = {"side": video}
    elif what == "both":
        given["videos"] = {CAMERA: video}
    elif what == "short video":
        given |= {"rows": make_rows(STEPS + 1), "frames": {}, "videos": {CAMERA: video}}
    elif what == "other size":
        given |= {"header": make_header(cameras=(CameraShape(CAMERA, 8, 8),)), "frames": {}, "videos": {CAMERA: video}}
    elif what == "no video":
        given |= {"frames": {}, "videos": {CAMERA: video.with_name("gone.mp4")}}
    elif what == "no rows":
        given["rows"] = {name: values[:0] for name, values in rows.items()}
    elif what == "column missing":
        del rows["qvel"]
    elif what == "column too long":
        rows["qvel"] = np.zeros((STEPS + 1, 2))
    elif what == "not finite":
        rows["qpos"] = np.where(np.arange(STEPS)[:, None] == 4, np.nan, rows["qpos"])
    else:
        assert what == "time stands still"
        rows["timestamps/step"] = np.minimum(rows["timestamps/step"], 0.5)
    return given


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("too short", "top gave 7 frames, expected 8"),
        ("too long", "top gave more than 8 frames"),
        ("no frames", "top gave 0 frames, expected 8"),
        ("other shape", r"frame 3 of top is \(32, 47, 3\) uint8, expected \(32, 48, 3\) uint8"),
        ("other type", r"frame 0 of top is \(32, 48, 3\) float32"),
        ("no camera", "frames of no camera were given, expected those of top"),
        ("video of nothing", "a video of side was given; the episode has top"),
        ("both", "frames of top were given, expected those of no camera"),
        ("short video", r"source\.mp4: 8 frames, expected 9"),
        ("other size", r"source\.mp4: frame 0 is 32x48, its episode says 8x8"),
        ("no video", r"gone\.mp4: no such file"),
        ("no rows", "no steps"),
        ("column missing", "an episode has .*qvel"),
        ("column too long", r"qvel is \(9, 2\), expected \(8, 2\)"),
        ("not finite", "qpos of step 4 is not finite"),
        ("time stands still", "do not increase"),
    ],
)
def test_what_does_not_fit_is_named_and_leaves_nothing(video: Path, tmp_path: Path, what: str, says: str) -> None:
    data_dir, before = tmp_path / "data", sha256_of(video)
    with pytest.raises(EpisodeError, match=says):
        save_episode(data_dir, **wrong(what, video))  # type: ignore[arg-type]
    assert not data_dir.exists() or [path.name for path in data_dir.iterdir()] == [".saving-lock"]
    assert sha256_of(video) == before


def test_a_source_that_changes_while_it_is_copied_is_refused(
    video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = shutil.copyfileobj

    def changed(reading: object, writing: object, length: int) -> None:
        video.write_bytes(video.read_bytes() + b"more")
        copy(reading, writing, length)  # type: ignore[arg-type]

    monkeypatch.setattr(shutil, "copyfileobj", changed)
    with pytest.raises(EpisodeError, match="changed while it was copied"):
        save(tmp_path / "data", STEPS, video=video)
    assert list_episodes(tmp_path / "data") == []
