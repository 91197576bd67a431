from __future__ import annotations

import contextlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skills.ids import AmbiguousSkillError, SkillId, SkillIdError, UnknownSkillError, directory_name, resolve

KNOWN = [SkillId.parse(text) for text in ("local/pick-up-cup", "local/wave", "builtin/wave", "builtin/open_door")]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("local/pick-up-cup", "local/pick-up-cup"),
        ("pick_up_cup", "local/pick-up-cup"),
        ("pick-up_cup", "local/pick-up-cup"),
        (" pick-up-cup ", "local/pick-up-cup"),
        ("open-door", "builtin/open_door"),
        ("builtin/wave", "builtin/wave"),
        ("innate-os/wave", "builtin/wave"),
        ("innate-os/open-door", "builtin/open_door"),
    ],
)
def test_a_query_that_names_one(query, found):
    assert str(resolve(query, KNOWN)) == found


def test_a_bare_name_in_two_namespaces_is_ambiguous():
    with pytest.raises(AmbiguousSkillError, match="'wave' names 2 skills: builtin/wave, local/wave"):
        resolve("wave", KNOWN)


def test_two_that_differ_in_the_dash_need_the_exact_name():
    known = [SkillId("local", "pick-up"), SkillId("local", "pick_up")]
    assert resolve("pick_up", known) == known[1]
    assert resolve("local/pick-up", known) == known[0]
    with pytest.raises(AmbiguousSkillError):
        resolve("pick-up", [*known, SkillId("builtin", "pick-up")])
    with pytest.raises(AmbiguousSkillError, match="rename one"):
        resolve("pick-up", [known[0], known[0]])


def test_an_unknown_one_lists_the_candidates_near_misses_first():
    with pytest.raises(UnknownSkillError) as error:
        resolve("pick_up_cups", KNOWN)
    assert str(error.value).startswith("no skill 'pick_up_cups'. There is local/pick-up-cup, ")
    assert all(str(skill) in str(error.value) for skill in KNOWN)
    with pytest.raises(UnknownSkillError, match="There are no skills yet"):
        resolve("x", [])
    with pytest.raises(UnknownSkillError, match="and 30 more"):
        resolve("x", [SkillId("local", f"s{n}") for n in range(50)])


@pytest.mark.parametrize("text", ["remote/wave", "local/", "/wave", "local/a/b", ""])
def test_no_id(text):
    with pytest.raises(SkillIdError, match=r"local/<name> or builtin/<name>"):
        SkillId.parse(text)


@pytest.mark.parametrize(
    ("display", "directory"),
    [
        ("Pick Up Socks!", "pick-up-socks"),
        ("pick_up_cup", "pick-up-cup"),
        ("Test ", "test"),
        ("../../etc/passwd", "etcpasswd"),
        (".hidden", "hidden"),
        ("--rf", "rf"),
        ("NUL", "nul-skill"),
        ("com1", "com1-skill"),
        ("Käse 2", "kse-2"),
    ],
)
def test_directory_names(display, directory):
    assert directory_name(display) == directory


def test_a_name_without_letters_gets_one_that_is_always_the_same():
    assert directory_name("杯子") == directory_name("杯子")
    assert directory_name("杯子") != directory_name("袜子")


@pytest.mark.parametrize("blank", ["", "  ", "\n\t"])
def test_a_blank_name_is_refused(blank):
    with pytest.raises(SkillIdError, match="blank"):
        directory_name(blank)


@given(st.text(max_size=200))
def test_any_name_gives_a_safe_directory_or_is_refused(display):
    try:
        name = directory_name(display)
    except SkillIdError:
        assert not display.strip()
        return
    assert re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", name)
    assert len(name) <= 110
    assert resolve(name.replace("-", "_"), [SkillId("local", name)]).name == name


@given(st.text(max_size=20), st.lists(st.builds(SkillId, st.sampled_from(["local", "builtin"]), st.text(max_size=8))))
def test_any_query_resolves_or_says_why(query, known):
    with contextlib.suppress(UnknownSkillError, AmbiguousSkillError, SkillIdError):
        assert resolve(query, known) in known
