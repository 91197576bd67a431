"""Names of skills: `local/pick-up-cup` for the user's, `builtin/wave` for the shipped ones."""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, cast

from foundation.errors import BtruntimeError

Namespace = Literal["local", "builtin"]
_NAMESPACES = {"local": "local", "builtin": "builtin", "innate-os": "builtin"}
_WINDOWS_DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10))}
_MAX_DIRECTORY_NAME = 100
_MAX_LISTED = 20


class SkillIdError(BtruntimeError):
    """A text is not the ID of a skill, or a display name gives no directory name."""


class UnknownSkillError(BtruntimeError):
    """No skill has this ID."""


class AmbiguousSkillError(BtruntimeError):
    """More than one skill has this ID."""


@dataclass(frozen=True, slots=True, order=True)
class SkillId:
    """A skill's ID. Two IDs that differ only in `-` and `_` name the same skill: compare their `key`."""

    namespace: Namespace
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"

    @property
    def key(self) -> tuple[str, str]:
        """Equal for IDs that name the same skill."""
        return self.namespace, _folded(self.name)

    @classmethod
    def parse(cls, text: str) -> SkillId:
        """An ID with its namespace; `innate-os/x` is `builtin/x`.

        Raises:
            SkillIdError: another namespace, or no name.
        """
        namespace, _, name = text.strip().partition("/")
        if namespace not in _NAMESPACES or not name or "/" in name:
            raise SkillIdError(f"{text!r} is not a skill ID, expected local/<name> or builtin/<name>.")
        return cls(cast(Namespace, _NAMESPACES[namespace]), name)


def resolve(query: str, known: Iterable[SkillId]) -> SkillId:
    """The one skill that `query` names, with its namespace or without.

    Raises:
        UnknownSkillError: none; the error lists those there are, the most similar first.
        AmbiguousSkillError: several; the error lists them.
        SkillIdError: the query has a namespace that does not exist.
    """
    candidates = list(known)
    if "/" in query:
        wanted = SkillId.parse(query)
        found = [skill for skill in candidates if skill.key == wanted.key]
    else:
        found = [skill for skill in candidates if _folded(skill.name) == _folded(query.strip())]
    if not found:
        raise UnknownSkillError(f"no skill {query!r}. {_listed(query, candidates)}")
    name = query.strip().rpartition("/")[2]
    if len({skill.namespace for skill in found}) == 1:
        # Within a namespace, the exact spelling decides between two that differ only in - and _.
        found = [skill for skill in found if skill.name == name] or found
    if len(found) > 1:
        raise AmbiguousSkillError(
            f"{query!r} names {len(found)} skills: {', '.join(map(str, sorted(found)))}. Use one of these IDs; "
            f"if two are the same, rename one."
        )
    return found[0]


def directory_name(display_name: str) -> str:
    """A directory name for a display name: "Pick Up Socks!" gives `pick-up-socks`.

    Keeps ASCII letters, digits and `-`; spaces and `_` become `-`. A name of which nothing remains gets one made
    from its hash, the same each time. Never hidden, never an option, never a device of Windows.

    Raises:
        SkillIdError: the name is blank.
    """
    if not display_name.strip():
        raise SkillIdError("the name of a skill is blank. Give it at least one letter.")
    kept = re.sub(r"[^A-Za-z0-9 -]", "", display_name.replace("_", " "))
    name = kept.replace(" ", "-").lower().strip("-")[:_MAX_DIRECTORY_NAME].strip("-")
    if not name:
        digest = hashlib.sha256(display_name.strip().encode(errors="surrogatepass")).hexdigest()
        return f"skill-{digest[:8]}"
    return f"{name}-skill" if name in _WINDOWS_DEVICES else name


def _folded(name: str) -> str:
    return name.replace("_", "-")


def _listed(query: str, candidates: list[SkillId]) -> str:
    """All candidates, near misses first; the rest counted where there are many."""
    if not candidates:
        return "There are no skills yet."
    by_similarity = sorted(candidates, key=lambda skill: (-_similarity(query, skill), skill))
    shown = ", ".join(map(str, by_similarity[:_MAX_LISTED]))
    more = len(by_similarity) - _MAX_LISTED
    return f"There is {shown}{f' and {more} more' if more > 0 else ''}."


def _similarity(query: str, skill: SkillId) -> float:
    name = query.strip().rpartition("/")[2]
    return difflib.SequenceMatcher(None, _folded(name).lower(), _folded(skill.name).lower()).ratio()
