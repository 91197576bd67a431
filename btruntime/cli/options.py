"""Options that several commands share."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from skills.store import SkillStore

DEFAULT_ROBOT = "sim:"


def add_json(parser: argparse.ArgumentParser) -> None:
    """`--json`."""
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object on the last line")


def add_skills_dir(parser: argparse.ArgumentParser) -> None:
    """`--skills-dir`."""
    parser.add_argument(
        "--skills-dir", type=Path, metavar="DIR", help="where skills are (default: $BTRUNTIME_SKILLS_DIR or ~/skills)"
    )


def add_agents_dir(parser: argparse.ArgumentParser) -> None:
    """`--agents-dir`."""
    parser.add_argument(
        "--agents-dir", type=Path, metavar="DIR", help="where agents are (default: $BTRUNTIME_AGENTS_DIR or ~/agents)"
    )


def add_robot(parser: argparse.ArgumentParser) -> None:
    """`--robot`."""
    parser.add_argument(
        "--robot",
        default=DEFAULT_ROBOT,
        metavar="ADDRESS",
        help='which robot, for example "sim:", "sim:demo?seed=3", "sim:demo?fault=freeze:arm_camera@3" (default: sim:)',
    )


def store_of(args: argparse.Namespace) -> SkillStore:
    """The skill store that the options name."""
    from skills.store import SkillStore

    return SkillStore(args.skills_dir)


def whole(minimum: int) -> Callable[[str], int]:
    """An argument's type: a whole number that is not below `minimum`."""

    def parsed(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = minimum - 1
        if number < minimum:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of {minimum} or more")
        return number

    return parsed


def numbers(text: str) -> tuple[int, ...]:
    """An argument's type: numbers of episodes, such as "20,36,70" or "0-4,9"."""
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise argparse.ArgumentTypeError(f"{text!r} is no list of numbers such as 20,36,70 or 0-4,9")
        end = int(last) if dash else int(first)
        if not int(first) <= end <= int(first) + 100_000:
            raise argparse.ArgumentTypeError(f"{part.strip()!r} is no range of numbers")
        found.extend(range(int(first), end + 1))
    return tuple(dict.fromkeys(found))


def speed(text: str) -> float:
    """An argument's type: a time factor that skills may have."""
    try:
        factor = float(text)
    except ValueError:
        factor = float("nan")
    if not 0.1 <= factor <= 2.0:
        raise argparse.ArgumentTypeError(f"{text!r} is no time factor of 0.1 to 2")
    return factor
