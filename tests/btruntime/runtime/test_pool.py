from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from skill_bench import FakePolicy, holding, input_spec, small_spec

from btruntime.runtime import PolicyPool
from policies.manifest import ManifestError
from policies.runner import InlineRunner


class Counted(InlineRunner):
    """Knows whether it was closed; fails when it is told so."""

    closed = 0
    trouble: str | None = None

    @property
    def error(self) -> str | None:
        return self.trouble

    def close(self) -> None:
        self.closed += 1


def make(checkpoint: Path) -> Counted:
    return Counted(FakePolicy(input_spec(small_spec()), lambda inputs, t_s: holding(inputs)))


def files(directory: Path, count: int) -> list[Path]:
    paths = [directory / f"act_policy_step_{step}.pth" for step in range(count)]
    for path in paths:
        path.write_bytes(b"weights")
    return paths


def test_the_same_file_is_loaded_once_under_any_name(tmp_path: Path) -> None:
    pool, (path,) = PolicyPool(make), files(tmp_path, 1)
    link = tmp_path / "latest.pth"
    link.symlink_to(path)
    assert pool.get(path) is pool.get(link) is pool.get(path)


def test_another_file_under_the_same_name_is_loaded_anew(tmp_path: Path) -> None:
    pool, (path,) = PolicyPool(make), files(tmp_path, 1)
    first = pool.get(path)
    os.utime(path, ns=(1, 1))
    second = pool.get(path)
    assert second is not first
    (tmp_path / "new").write_bytes(b"weights")
    os.utime(tmp_path / "new", ns=(1, 1))
    (tmp_path / "new").rename(path)
    assert pool.get(path) is not second


def test_a_policy_that_failed_is_closed_and_made_anew(tmp_path: Path) -> None:
    pool, (path,) = PolicyPool(make), files(tmp_path, 1)
    first = pool.get(path)
    first.trouble = "NaN"
    second = pool.get(path)
    assert (second is not first, first.closed, second.closed) == (True, 1, 0)
    assert pool.get(path) is second


def test_the_one_that_was_used_longest_ago_goes_first(tmp_path: Path) -> None:
    pool, (a, b, c) = PolicyPool(make, capacity=2), files(tmp_path, 3)
    first, second = pool.get(a), pool.get(b)
    pool.get(a)
    pool.get(c)
    assert (first.closed, second.closed) == (0, 1)
    assert pool.get(a) is first
    assert pool.get(b) is not second


def test_closing_closes_all_and_may_be_repeated(tmp_path: Path) -> None:
    pool, paths = PolicyPool(make), files(tmp_path, 2)
    runners = [pool.get(path) for path in paths]
    pool.close()
    pool.close()
    assert [runner.closed for runner in runners] == [1, 1]


def test_a_missing_file_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"gone\.pth is missing\. Train the skill, or activate another run\."):
        PolicyPool(make).get(tmp_path / "gone.pth")


def test_what_cannot_be_made_is_tried_again(tmp_path: Path) -> None:
    attempts = []

    def flaky(checkpoint: Path) -> Counted:
        attempts.append(checkpoint)
        if len(attempts) == 1:
            raise ManifestError("no.")
        return make(checkpoint)

    pool, (path,) = PolicyPool(flaky), files(tmp_path, 1)
    with pytest.raises(ManifestError):
        pool.get(path)
    assert pool.get(path) is pool.get(path)


def test_two_threads_get_the_same_policy(tmp_path: Path) -> None:
    pool, (path,) = PolicyPool(make), files(tmp_path, 1)
    found: list[object] = []
    threads = [threading.Thread(target=lambda: found.append(pool.get(path))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(map(id, found))) == 1


def test_reports_are_those_of_the_policies_that_tell_of_themselves(tmp_path: Path) -> None:
    class Telling(Counted):
        @property
        def report(self) -> str:
            return "fast, 1 ms"

    silent, telling = files(tmp_path, 2)
    policy = FakePolicy(input_spec(small_spec()), lambda inputs, t_s: holding(inputs))
    pool = PolicyPool(lambda path: Telling(policy) if path == telling else make(path))
    assert pool.reports() == []
    for path in (silent, telling):
        pool.get(path)
    assert pool.reports() == ["fast, 1 ms"]
    pool.close()
    assert pool.reports() == []
