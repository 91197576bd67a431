"""What an imported episode says of its videos and of where it came from."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import pytest
from episode_bench import CAMERA, HEIGHT, WIDTH, make_header, save, write_video
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from skills.episodes import CameraShape, Episode, EpisodeError, EpisodeHeader, EpisodeWriteError, EpisodeWriter, Origin

SHA = "a" * 64
names = st.text("abcdefghij_0123456789", min_size=1, max_size=8).filter(lambda name: name[0].isalpha())
origins = st.builds(
    Origin, format=st.text(), dataset=st.text(), episode=st.integers(), notes=st.lists(st.text()).map(tuple)
)


def read_back(header: EpisodeHeader) -> EpisodeHeader:
    return EpisodeHeader.from_attributes(
        header.to_attributes(), cameras=header.image_cameras, has_base=header.has_base, where="x.h5"
    )


@given(st.lists(names, unique=True, max_size=4), st.data(), st.none() | origins)
def test_videos_and_origin_survive_being_written(
    cameras: list[str], data: st.DataObject, origin: Origin | None
) -> None:
    filmed = data.draw(st.lists(st.sampled_from(cameras), unique=True)) if cameras else []
    shapes = tuple(CameraShape(name, 4 + number, 6) for number, name in enumerate(cameras))
    header = make_header(cameras=shapes, videos=dict.fromkeys(filmed, SHA), origin=origin)
    found = read_back(header)
    assert set(found.cameras) == set(header.cameras)
    assert dict(found.videos) == dict(header.videos)
    assert found.origin == origin
    assert found.cameras == (*header.image_cameras, *header.video_cameras)


def test_a_video_needs_its_camera() -> None:
    with pytest.raises(ValidationError, match="there is a video of side, which is no camera"):
        make_header(videos={"side": SHA})
    with pytest.raises(ValidationError, match="pattern"):
        make_header(videos={CAMERA: "../../etc/passwd"})


def test_a_recorder_refuses_videos(tmp_path: Path) -> None:
    with pytest.raises(EpisodeWriteError, match="saved as a whole"):
        EpisodeWriter(tmp_path / "data", make_header(videos={CAMERA: SHA}))
    assert not (tmp_path / "data").exists()


ENTRY = {"name": CAMERA, "height": HEIGHT, "width": WIDTH, "sha256": SHA}


@pytest.mark.parametrize(
    ("attribute", "value", "says"),
    [
        ("videos", "no JSON", "is not JSON"),
        ("videos", "[" * 100_000, "damaged|is not JSON"),
        ("videos", "{}", "list"),
        ("videos", json.dumps([ENTRY, ENTRY]), "two cameras have the same name"),
        ("videos", json.dumps([ENTRY | {"name": "../top"}]), "name"),
        ("videos", json.dumps([ENTRY | {"height": 0}]), "height"),
        ("videos", json.dumps([ENTRY | {"height": 10**9}]), "height"),
        ("videos", json.dumps([ENTRY | {"sha256": "0"}]), "sha256"),
        ("videos", json.dumps([{"name": CAMERA}]), "height"),
        ("videos", 7, "list|JSON"),
        ("origin", "no JSON", "is not JSON"),
        ("origin", "[]", "origin"),
        ("origin", json.dumps({"format": "x", "dataset": "y", "episode": "z"}), "episode"),
    ],
)
def test_an_attribute_that_was_altered_is_refused(tmp_path: Path, attribute: str, value: object, says: str) -> None:
    path = save(tmp_path / "data", 3, video=write_video(tmp_path / "a.mp4", 3))
    with h5py.File(path, "r+") as file:
        del file.attrs[attribute if attribute in file.attrs else "source"]
        file.attrs[attribute] = value
        file.attrs.setdefault("source", "import")
    with pytest.raises(EpisodeError, match=says) as caught:
        Episode(path)
    assert str(path) in str(caught.value)
