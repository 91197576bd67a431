"""The picture: its size, that it is of the numbers alone, and that it replaces the old one as a whole."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest
from matplotlib.figure import Figure

from btruntime.open_loop import ActionName, OpenLoopReport, Trace, Yardstick
from btruntime.open_loop.plot import plot
from btruntime.training.trainer.validation import OpenLoopError


def report_of(*, episodes: int = 2, dims: int = 3, notes: tuple[str, ...] = ()) -> OpenLoopReport:
    times = np.linspace(0, 6, 60, dtype=np.float32)[:, None]
    waves = np.sin(times + np.arange(dims, dtype=np.float32))
    error = OpenLoopError(0.5, (0.1,) * dims, (0.5,))
    return OpenLoopReport(
        skill="put-$x$-in_cup",
        run_id="1",
        checkpoint="act_policy_step_5.pth",
        horizon=30,
        n_action_steps=10,
        rate_hz=10.0,
        episodes=tuple(f"episode_{number}.h5" for number in range(episodes)),
        training_episodes=("episode_9.h5",),
        dims=tuple(ActionName(f"joint_{dim}_$v", "rad/s") for dim in range(dims)),
        policy=error,
        yardsticks=dict.fromkeys(Yardstick, error),
        traces=tuple(Trace(f"episode_{number}.h5", waves, waves * np.float32(0.9)) for number in range(episodes)),
        notes=notes,
    )


@pytest.fixture
def texts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is written on the figures that are saved."""
    from matplotlib.text import Text

    found: list[str] = []
    save = Figure.savefig

    def watched(figure: Figure, *arguments: object, **options: object) -> None:
        save(figure, *arguments, **options)  # type: ignore[arg-type]
        found.extend(text.get_text() for text in figure.findobj(Text) if isinstance(text, Text))

    monkeypatch.setattr(Figure, "savefig", watched)
    return found


@pytest.mark.parametrize(("episodes", "dims"), [(1, 1), (2, 3)])
def test_its_size_and_its_words(tmp_path: Path, texts: list[str], episodes: int, dims: int) -> None:
    plot(report_of(episodes=episodes, dims=dims, notes=("trained on it",)), tmp_path / "x.png")
    picture = cv2.imread(str(tmp_path / "x.png"))
    assert picture is not None
    assert picture.shape[1] == 1600
    assert [path.name for path in tmp_path.iterdir()] == ["x.png"]
    words = "\n".join(texts)
    assert "put-$x$-in_cup, run 1 (act_policy_step_5.pth): open-loop L1 0.500" in words
    assert "trained on it" in words
    assert "looking every 10 steps" in words
    assert "time [s]" in words
    for dim in range(dims):
        assert f"joint_{dim}_$v\n[rad/s]" in words
    for episode in range(episodes):
        assert f"episode_{episode}.h5" in words


def test_more_episodes_than_fit(tmp_path: Path, texts: list[str]) -> None:
    plot(report_of(episodes=6, dims=1), tmp_path / "x.png")
    assert {f"episode_{number}.h5" for number in range(6)} & set(texts) == {f"episode_{n}.h5" for n in range(4)}
    assert any("the first 4 of 6 episodes" in text for text in texts)


def test_both_lines_are_drawn(tmp_path: Path) -> None:
    """One curve lies on the other in the first picture, and apart from it in the second."""
    report = report_of(episodes=1, dims=1)
    trace = report.traces[0]
    pictures = []
    for sent in (trace.demonstrated, trace.sent):
        changed = dataclasses.replace(report, traces=(dataclasses.replace(trace, sent=sent),))
        plot(changed, tmp_path / "x.png")
        pictures.append(cv2.imread(str(tmp_path / "x.png")).astype(int))
    assert (pictures[0] != pictures[1]).any()


def test_a_picture_that_cannot_be_finished_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.png").write_bytes(b"old")

    def full(figure: Figure, file: Path, **_: object) -> None:
        file.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Figure, "savefig", full)
    with pytest.raises(OSError, match="No space left"):
        plot(report_of(), tmp_path / "x.png")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"x.png": b"old"}
