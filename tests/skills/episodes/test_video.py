"""Frames by their number, whatever order they are stored in; and files that are not what they should be."""

from __future__ import annotations

import io
import socket
import threading
from pathlib import Path

import av
import numpy as np
import pytest
from episode_bench import HEIGHT, WIDTH, write_video

from skills.episodes import EpisodeError
from skills.episodes.video import VideoFrames

STEPS = 30
CODINGS = {
    "b-frames": {"b_frames": 2, "key_every": 5},
    "every frame a key": {"key_every": 1},
    "one key": {"key_every": 250, "b_frames": 2},
}
if "libx264" in av.codecs_available:
    CODINGS |= {
        name: {"codec": "libx264", "options": {"x264-params": f"{params}:b-adapt=0:scenecut=0"}}
        for name, params in {
            "x264 pyramid": "keyint=12:bframes=8:b-pyramid=normal",
            "x264 open groups": "open-gop=1:keyint=8:min-keyint=8:bframes=3",
            "x264 short open groups": "open-gop=1:keyint=2:min-keyint=1:bframes=3",
        }.items()
    }


def in_sequence(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def remuxed(source: Path, target: Path, cut: int) -> Path:
    """The same without its first frames, cut off by an edit list as `ffmpeg -ss ... -c copy` does it."""
    options = {"avoid_negative_ts": "disabled", "use_editlist": "1"}
    with av.open(str(source)) as reading, av.open(str(target), "w", format="mp4", options=options) as writing:
        stream = reading.streams.video[0]
        copy = writing.add_stream_from_template(stream)
        tick = round(1 / (stream.average_rate * stream.time_base))
        for packet in reading.demux(stream):
            if packet.dts is not None:
                packet.pts, packet.dts, packet.stream = packet.pts - cut * tick, packet.dts - cut * tick, copy
                writing.mux(packet)
    return target


def assert_random_access(path: Path) -> None:
    expected = in_sequence(path)
    video = VideoFrames(path, HEIGHT, WIDTH, len(expected))
    assert len(video) == len(expected)
    order = [*reversed(range(len(expected))), *np.random.default_rng(0).permutation(len(expected)), *range(3), 2, 2]
    for index in order:
        assert np.array_equal(video.frame(int(index)), expected[index]), index
    video.close()


@pytest.mark.parametrize("coding", CODINGS)
def test_any_frame_is_what_reading_in_sequence_gives(tmp_path: Path, coding: str) -> None:
    path = write_video(tmp_path / "a.mp4", STEPS, **CODINGS[coding])
    assert len(in_sequence(path)) == STEPS
    assert_random_access(path)


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("cut", [2, 5])
def test_what_an_edit_list_cuts_off_does_not_count(tmp_path: Path, coding: str, cut: int) -> None:
    path = remuxed(write_video(tmp_path / "a.mp4", STEPS, **CODINGS[coding]), tmp_path / "b.mp4", cut)
    assert len(in_sequence(path)) == STEPS - cut
    assert_random_access(path)


def test_reading_on_does_not_seek(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", STEPS, b_frames=2, key_every=250, options={"sc_threshold": "1000000000"})
    video = VideoFrames(path, HEIGHT, WIDTH, STEPS)
    video.frame(3)
    begun = video._decoded
    assert [video.frame(index).shape for index in (4, 5, 9)] == [(HEIGHT, WIDTH, 3)] * 3
    assert video._decoded is begun
    video.frame(8)
    assert video._decoded is not begun


def test_more_frames_than_steps_are_fine_and_fewer_are_refused(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 7)
    assert len(VideoFrames(path, HEIGHT, WIDTH, 5)) == 7
    with pytest.raises(EpisodeError, match=r"a\.mp4: 7 frames, expected 8, one per step\."):
        VideoFrames(path, HEIGHT, WIDTH, 8)


def test_another_size_is_refused_by_the_frame(tmp_path: Path) -> None:
    video = VideoFrames(write_video(tmp_path / "a.mp4", 3, size=(16, 32)), HEIGHT, WIDTH, 3)
    with pytest.raises(EpisodeError, match=r"frame 0 is 16x32, its episode says 32x48\."):
        video.frame(0)


def sound() -> bytes:
    """An mp4 without a picture."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def test_what_is_no_video_is_said_in_a_sentence(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "whole.mp4", STEPS, key_every=5)
    content = whole.read_bytes()
    path = tmp_path / "a.mp4"
    texts = (b"#EXTM3U\n#EXTINF:1,\n" + bytes(whole), b"ffconcat version 1.0\nfile '" + bytes(whole) + b"'\n")
    for wrong in (b"", b"no video", bytes(5000), content[: len(content) // 2], content[len(content) // 2 :], *texts):
        path.write_bytes(wrong)
        with pytest.raises(EpisodeError, match=r"a\.mp4: no mp4 video: .*Import or copy it again\.") as caught:
            VideoFrames(path, HEIGHT, WIDTH, STEPS)
        assert "Errno" not in str(caught.value)
    path.write_bytes(sound())
    with pytest.raises(EpisodeError, match="holds no video"):
        VideoFrames(path, HEIGHT, WIDTH, STEPS)
    write_video(path, 3, container_format="matroska")
    with pytest.raises(EpisodeError, match="no mp4 video"):
        VideoFrames(path, HEIGHT, WIDTH, 3)
    for nothing in (tmp_path, tmp_path / "missing.mp4"):
        with pytest.raises(EpisodeError, match="no such file"):
            VideoFrames(nothing, HEIGHT, WIDTH, STEPS)


def test_a_video_that_was_cut_short_behind_its_index_lacks_frames(tmp_path: Path) -> None:
    source, path = write_video(tmp_path / "source.mp4", STEPS, key_every=5), tmp_path / "a.mp4"
    with (
        av.open(str(source)) as reading,
        av.open(str(path), "w", format="mp4", options={"movflags": "faststart"}) as writing,
    ):
        copy = writing.add_stream_from_template(reading.streams.video[0])
        for packet in reading.demux(reading.streams.video[0]):
            if packet.dts is not None:
                packet.stream = copy
                writing.mux(packet)
    content = path.read_bytes()
    assert len(VideoFrames(path, HEIGHT, WIDTH, STEPS)) == STEPS
    path.write_bytes(content[: len(content) * 3 // 4])
    with pytest.raises(EpisodeError, match="frames, expected 30"):
        VideoFrames(path, HEIGHT, WIDTH, STEPS)


def test_a_name_that_ffmpeg_would_take_for_an_address_is_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_video(Path("real.mp4"), 4)
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        called: list[object] = []
        listening = threading.Thread(target=lambda: called.append(_accepted(server)))
        listening.start()
        port = server.getsockname()[1]
        for name in ("concat:real.mp4", "subfile,,start,0,end,100,,:real.mp4", f"http://127.0.0.1:{port}/a.mp4"):
            with pytest.raises(EpisodeError, match="no such file"):
                VideoFrames(Path(name), HEIGHT, WIDTH, 4)
        listening.join()
    assert called == [False]
    Path("real.mp4").rename("concat:real.mp4")
    assert len(VideoFrames(Path("concat:real.mp4"), HEIGHT, WIDTH, 4)) == 4


def _accepted(server: socket.socket) -> bool:
    try:
        server.accept()[0].close()
    except TimeoutError:
        return False
    return True
