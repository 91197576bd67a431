"""The entry point: finds the command, imports its module alone, and turns errors into a sentence and a status.

Standard output is for results, standard error for messages. Exit status: 0 done, 1 failed, 2 wrong usage,
128 + N ended by signal N.
"""

from __future__ import annotations

import argparse
import errno
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Protocol, cast

from btruntime.cli.interrupts import Interruption, interruptible
from btruntime.cli.output import tell
from foundation.errors import BtruntimeError

COMMANDS: Mapping[str, str] = {
    "demo": "from demonstrations to a running skill, in simulation, in five minutes",
    "skills": "list skills, show one, or make a new one",
    "agents": "list agents",
    "check": "can this skill run on this robot? nothing moves",
    "tree": "draw the behaviour tree of a skill or an agent",
    "run": "run a skill or an agent",
    "record": "record demonstrations",
    "dataset": "list, check, import, replay or recover the episodes of a skill",
    "train": "train a policy, list runs, activate one",
    "policy": "import a policy of another program, export one, or show what one sees",
    "evaluate": "how good is a skill? in simulated scenes, or against recordings",
    "flight": "what a run did, tick by tick",
}


_REMEDIES: Mapping[int, str] = {
    errno.ENOSPC: " Free some space and try again.",
    errno.EDQUOT: " Free some space and try again.",
    errno.EFBIG: " Free some space, or raise the limit on the size of files, and try again.",
    errno.EROFS: " Choose a directory that can be written to.",
    errno.EACCES: " Choose a directory that you may use, or change its permissions.",
}


class Command(Protocol):
    """What a module in `btruntime.cli.commands` offers."""

    configure: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status. Without `argv` it is the whole program: nothing is to come after it."""
    whole = argv is None
    with interruptible(last=whole):
        try:
            return _run(sys.argv[1:] if argv is None else list(argv))
        except KeyboardInterrupt as error:
            ended = error if isinstance(error, Interruption) else Interruption(signal.SIGINT)
            tell(f"btruntime: {ended}")
            return 128 + ended.number
        finally:
            if whole:
                _flush()


def _run(arguments: list[str]) -> int:
    parser = _parser()
    chosen = next((word for word in arguments if word in COMMANDS), None)
    command: Command | None = None
    if chosen is not None and arguments[0] == chosen:
        command = cast(Command, import_module(f"btruntime.cli.commands.{chosen}"))
        sub = argparse.ArgumentParser(
            prog=f"btruntime {chosen}",
            description=(command.__doc__ or "").strip(),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.configure(sub)
        args = sub.parse_args(arguments[1:])
        return _guarded(command, args)
    args = parser.parse_args(arguments)
    parser.print_help()
    return 2 if arguments else 0


def _parser() -> argparse.ArgumentParser:
    listing = "\n".join(f"  {name:<10} {what}" for name, what in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="btruntime",
        usage="btruntime COMMAND [options]",
        description="Teach a robot a skill by demonstration, train a policy for it, run it as a behaviour tree.",
        epilog=f"commands:\n{listing}\n\n'btruntime COMMAND --help' says more. Start with: btruntime demo",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=_Version())
    parser.add_argument("command", nargs="?", choices=list(COMMANDS), metavar="COMMAND", help=argparse.SUPPRESS)
    return parser


class _Version(str):
    """Looked up only when it is asked for."""

    __slots__ = ()

    def __mod__(self, other: object) -> str:
        from btruntime import __version__

        return f"btruntime {__version__}"


def _guarded(command: Command, args: argparse.Namespace) -> int:
    try:
        status = command.run(args)
        sys.stdout.flush()
        return status
    except BtruntimeError as error:
        tell(f"btruntime: {error}")
        return 1
    except BrokenPipeError:
        _drop_output()  # Whoever read it has gone; there is nobody to tell.
        return 141
    except OSError as error:
        # What no command foresaw: a directory that cannot be made, a disk that is full.
        where = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
        tell(f"btruntime: {where}{error.strerror or error}.{_REMEDIES.get(error.errno or 0, '')}")
        return 1


def _flush() -> None:
    """Now, while somebody can say what went wrong: at its very end, Python shows it as its own affair."""
    try:
        sys.stdout.flush()
    except OSError:
        _drop_output()


def _drop_output() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
