"""Files that survive a kill, and paths that stay where they belong."""

from __future__ import annotations

import errno
import hashlib
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foundation import BtruntimeError
from foundation.files import PathEscapesError, confined, replacing, sha256_of, write_atomic

ROOT = Path(__file__).resolve().parents[2]


def test_a_file_is_replaced_as_a_whole_and_nothing_is_left_over(tmp_path):
    path = tmp_path / "metadata.json"
    write_atomic(path, b"old")
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError("bad"), OSError(errno.ENOSPC, "full"), KeyboardInterrupt()])
def test_an_exception_keeps_the_old_file(tmp_path, error):
    path = tmp_path / "metadata.json"
    path.write_bytes(b"old")

    def fail() -> None:
        with replacing(path) as temporary:
            temporary.write_bytes(b"half")
            raise error

    with pytest.raises(type(error)):
        fail()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_exception_leaves_no_file_where_there_was_none(tmp_path):
    with pytest.raises(ValueError, match="bad"), replacing(tmp_path / "new"):
        raise ValueError("bad")
    assert list(tmp_path.iterdir()) == []


def test_a_kill_keeps_the_old_file(tmp_path):
    path = tmp_path / "metadata.json"
    path.write_bytes(b"old")
    program = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from foundation.files import replacing\n"
        "with replacing(Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_bytes(b'half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", program, str(path)], cwd=ROOT, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"
    leftovers = [left for left in tmp_path.iterdir() if left != path]
    assert all(left.name.startswith(".metadata.json.") and left.suffix == ".tmp" for left in leftovers)
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new"


def test_a_block_that_removes_its_temporary_file_is_an_error(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"old")
    with pytest.raises(FileNotFoundError), replacing(path) as temporary:
        temporary.unlink()
    assert path.read_bytes() == b"old"


def test_permissions_are_those_of_the_old_file_or_of_a_new_one(tmp_path):
    path, plain = tmp_path / "secret", tmp_path / "plain"
    path.write_bytes(b"old")
    path.chmod(0o600)
    write_atomic(path, b"new")
    assert path.stat().st_mode & 0o777 == 0o600
    plain.touch()
    write_atomic(tmp_path / "fresh", b"new")
    assert (tmp_path / "fresh").stat().st_mode == plain.stat().st_mode


def test_the_umask_of_other_threads_is_never_touched(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "umask", lambda _: pytest.fail("umask belongs to the whole process"))
    write_atomic(tmp_path / "a", b"1")
    write_atomic(tmp_path / "a", b"2")


def test_writers_at_the_same_time_leave_one_whole_file(tmp_path):
    path = tmp_path / "a"
    contents = [bytes([k]) * 50_000 for k in range(8)]
    threads = [threading.Thread(target=write_atomic, args=(path, content)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_bytes() in contents
    assert list(tmp_path.iterdir()) == [path]


def test_sha256_and_its_progress(tmp_path):
    path, told = tmp_path / "a", []
    content = b"x" * (2 << 20) + b"y"
    path.write_bytes(content)
    assert sha256_of(path, told.append) == hashlib.sha256(content).hexdigest()
    assert told == [1 << 20, 2 << 20, (2 << 20) + 1]


@pytest.mark.parametrize("relative", ["a", "data/episode_1.h5", "./a", "data/../a", "~", "..a", "a\udc80"])
def test_paths_inside_are_given(tmp_path, relative):
    assert confined(tmp_path, relative, what="x").is_relative_to(tmp_path.resolve())


@pytest.mark.parametrize(
    "relative", ["", ".", "..", "../a", "data/../../a", "/etc/passwd", "//etc", "a\0b", "../" * 40 + "etc/passwd"]
)
def test_paths_outside_are_refused(tmp_path, relative):
    with pytest.raises(PathEscapesError, match=r"metadata.json: execution.checkpoint is .* Use a relative path"):
        confined(tmp_path, relative, what="metadata.json: execution.checkpoint")


def test_links_are_followed_before_the_decision(tmp_path):
    root = tmp_path / "skill"
    root.mkdir()
    (tmp_path / "outside").mkdir()
    (root / "data").mkdir()
    (root / "out").symlink_to(tmp_path / "outside")
    (root / "in").symlink_to("data")
    (root / "loop").symlink_to("loop")
    for relative in ("out", "out/file", "in/../../outside", "loop", "loop/a"):
        with pytest.raises(PathEscapesError):
            confined(root, relative, what="x")
    assert confined(root, "in/file", what="x") == (root / "data" / "file").resolve()


def test_a_root_that_is_a_link_and_one_with_a_similar_neighbour(tmp_path):
    (tmp_path / "skill").mkdir()
    (tmp_path / "skill2").mkdir()
    (tmp_path / "link").symlink_to("skill")
    assert confined(tmp_path / "link", "a", what="x") == (tmp_path / "skill" / "a").resolve()
    with pytest.raises(PathEscapesError):
        confined(tmp_path / "skill", "../skill2/a", what="x")


@settings(max_examples=200)
@given(parts=st.lists(st.sampled_from(["..", ".", "", "a", "out", "in", "\0", "/"]), max_size=6))
def test_no_path_gets_out(tmp_path_factory, parts):
    root = tmp_path_factory.getbasetemp() / "confined"
    if not root.exists():
        (root / "a").mkdir(parents=True)
        (root / "out").symlink_to("/")
        (root / "in").symlink_to("a")
    try:
        found = confined(root, "/".join(parts), what="x")
    except BtruntimeError:
        return
    assert os.path.realpath(found).startswith(os.path.realpath(root) + os.sep)
