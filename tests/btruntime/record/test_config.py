"""`recorder.yaml`."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from btruntime.record.config import RecorderConfig, RecorderConfigError, load_recorder_config


@pytest.fixture
def written(tmp_path):
    def write(text: str | bytes):
        path = tmp_path / "recorder.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def test_an_empty_file_gives_the_defaults(written):
    assert load_recorder_config(written("")) == RecorderConfig()
    assert RecorderConfig().data_frequency == 30.0


def test_all_fields(written):
    config = load_recorder_config(
        written(
            "data_frequency: 20\nimage_width: 320\nimage_height: 240\nmax_timesteps: 600\nbase: false\n"
            "cameras: [arm_camera]\ncamera_topics: {arm_camera: /mars/arm/image_raw}\n"
            "arm_state_topic: /mars/arm/state\nleader_command_topic: /mars/arm/commands\n"
        )
    )
    assert (config.data_frequency, config.image_width, config.image_height) == (20.0, 320, 240)
    assert (config.max_timesteps, config.base, config.cameras) == (600, False, ("arm_camera",))
    assert config.camera_topics == {"arm_camera": "/mars/arm/image_raw"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("- 1\n- 2\n", "is a list, expected fields"),
        ("30", "is a int, expected fields"),
        ("a: [", "is not YAML"),
        (b"\xff\xfe\x00", "is not YAML"),
        ("data_frequency: 0", "data_frequency: .*greater than 0"),
        ("data_frequency: .nan", "data_frequency"),
        ("data_frequency: fast", "data_frequency: .*number"),
        ("max_timesteps: 1", "max_timesteps: .*2"),
        ("image_width: 0", "image_width"),
        ("frequency: 30", "frequency: .*Fields are data_frequency, "),
        ("cameras: [3]", r"cameras\.0"),
        ("cameras: [arm_camera, arm_camera]", "arm_camera is named twice"),
        ("!!python/object/apply:os.getcwd []", "is not YAML"),
    ],
)
def test_what_is_wrong_is_named(written, text, says):
    with pytest.raises(RecorderConfigError, match=says) as raised:
        load_recorder_config(written(text))
    assert "recorder.yaml" in str(raised.value)


def test_a_missing_file(tmp_path):
    with pytest.raises(RecorderConfigError, match=r"absent\.yaml: cannot be read: No such file"):
        load_recorder_config(tmp_path / "absent.yaml")


@given(st.binary(max_size=60))
def test_any_file_is_a_config_or_refused(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("any") / "recorder.yaml"
    path.write_bytes(content)
    with suppress(RecorderConfigError):
        assert isinstance(load_recorder_config(path), RecorderConfig)
