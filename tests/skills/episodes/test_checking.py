"""Every byte of an episode and of its videos is looked at."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from episode_bench import CAMERA, save, write_video

from btruntime.cli.main import main
from skills.episodes import Episode, EpisodeError, check_episodes, list_episodes
from skills.store import SkillStore

STEPS = 8


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """Two episodes of skill `x`, each with a video."""
    data_dir = SkillStore(tmp_path).create("x").data_dir
    video = write_video(tmp_path / "source.mp4", STEPS)
    for _ in range(2):
        save(data_dir, STEPS, video=video)
    return data_dir


def problems(data_dir: Path) -> list[str | None]:
    return [each.problem for each in check_episodes(data_dir)]


def flip(path: Path, at: int) -> None:
    """One bit, with nothing to see from outside."""
    before, content = path.stat(), bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.999])
def test_one_flipped_bit_of_a_video_is_found(data_dir: Path, share: float, capsys: pytest.CaptureFixture[str]) -> None:
    assert problems(data_dir) == [None, None]
    video = data_dir / "episode_1_top.mp4"
    flip(video, int(video.stat().st_size * share))
    first, second = problems(data_dir)
    assert first is None
    assert second is not None
    assert "episode_1_top.mp4: its SHA-256 is" in second
    assert main(["dataset", "check", "x", "--skills-dir", str(data_dir.parent.parent)]) == 1
    assert "episode_1_top.mp4: its SHA-256" in capsys.readouterr().out


def test_a_missing_video_is_found(data_dir: Path) -> None:
    (data_dir / "episode_0_top.mp4").unlink()
    assert "episode_0_top.mp4: missing" in str(problems(data_dir)[0])
    with Episode(data_dir / "episode_0.h5") as episode:
        assert episode.action.shape == (STEPS, 3)
        with pytest.raises(EpisodeError, match=r"episode_0_top\.mp4: no such file"):
            episode.frame(CAMERA, 0)


def test_a_video_of_another_episode_is_found(data_dir: Path) -> None:
    write_video(data_dir / "episode_0_top.mp4", STEPS + 1)
    assert "SHA-256" in str(problems(data_dir)[0])


def test_frames_come_from_the_video_until_the_episode_is_closed(data_dir: Path) -> None:
    episode = Episode(data_dir / "episode_0.h5")
    assert (episode.camera_names, episode.has_images) == ((CAMERA,), False)
    assert len(list(episode.frames(CAMERA))) == STEPS
    assert (episode.frame(CAMERA, -1) == episode.frame(CAMERA, STEPS - 1)).all()
    with pytest.raises(EpisodeError, match="no step 8; the episode has 8"):
        episode.frame(CAMERA, STEPS)
    episode.close()
    episode.close()
    with pytest.raises(EpisodeError, match="closed"):
        episode.frame(CAMERA, 0)
    assert {each.video_files for each in list_episodes(data_dir)} == {("episode_0_top.mp4",), ("episode_1_top.mp4",)}
