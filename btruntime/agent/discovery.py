"""Finding agent files, importing them afresh when they change, and saying what is wrong with the broken ones."""

from __future__ import annotations

import hashlib
import inspect
import os
import re
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

from btruntime.agent.base import Agent
from btruntime.agent.blame import located
from btruntime.agent.tree import listed_skills
from foundation.errors import BtruntimeError

AGENTS_DIR_VARIABLE = "BTRUNTIME_AGENTS_DIR"
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,63}")


class AgentFileError(BtruntimeError):
    """What is asked of an agent file or of the directory of agents is not there, or does not work."""


class UnknownAgentError(BtruntimeError):
    """No agent has that id."""


@dataclass(frozen=True, slots=True)
class AgentEntry:
    """One agent that was found, or one file that should hold an agent and does not.

    Attributes:
        id, display_name: those of the agent; the file's stem where they cannot be read.
        cls: the class, to be called without arguments; None when there is a problem.
        problem: one line that says where and why; None when all is well.
    """

    id: str
    display_name: str
    path: Path
    cls: type[Agent] | None
    problem: str | None

    def create(self) -> Agent:
        """A new instance of the agent.

        Raises:
            AgentFileError: the agent has a problem, or its constructor raises.
        """
        if self.cls is None:
            raise AgentFileError(f"agent {self.id!r} cannot be used: {self.problem}")
        return _created(self.cls, self.path)


def default_agents_dir() -> Path:
    """`$BTRUNTIME_AGENTS_DIR`, else `~/agents`."""
    return Path(os.environ.get(AGENTS_DIR_VARIABLE) or Path.home() / "agents").expanduser()


def discover(agents_dir: Path | None = None) -> list[AgentEntry]:
    """Every agent in the `.py` files of the directory, imported now, by id; see `AgentFiles.entries`."""
    return AgentFiles(agents_dir).entries()


def find(query: str, entries: Sequence[AgentEntry]) -> AgentEntry:
    """The agent with that id, `-` and `_` being equal.

    Raises:
        UnknownAgentError: there is none; the error lists those there are.
        AgentFileError: there is one, and it has a problem.
    """
    found = named(query, entries)
    if not found:
        known = ", ".join(entry.id for entry in entries if entry.problem is None) or "none"
        broken = "".join(f"\nNot usable: {entry.problem}" for entry in entries if entry.problem is not None)
        raise UnknownAgentError(f"no agent is called {query!r}; there are: {known}.{broken}")
    usable = [entry for entry in found if entry.problem is None]
    if not usable:
        raise AgentFileError(f"agent {found[0].id!r} cannot be used: {found[0].problem}")
    return usable[0]


def named(query: str, entries: Sequence[AgentEntry]) -> list[AgentEntry]:
    """The entries with that id, `-` and `_` being equal, those with a problem too."""
    return [entry for entry in entries if _key(entry.id) == _key(query)]


class AgentFiles:
    """The agent files of one directory. Keep it to have only changed files imported again. One thread at a time."""

    def __init__(self, agents_dir: Path | None = None):
        self.directory = agents_dir or default_agents_dir()
        self._known: dict[Path, _File] = {}

    def entries(self) -> list[AgentEntry]:
        """Every agent of the directory as it is now, by id; a file that is broken gives an entry with its problem.

        Files that start with `_` and `types.py` are passed over. A directory that does not exist holds no agents.

        Raises:
            AgentFileError: the path is no directory, or cannot be listed.
        """
        files = {path: self._current(path) for path in self._paths()}
        for path in self._known.keys() - files.keys():
            _forget(self._known[path])
        self._known = files
        found = [entry for file in files.values() for entry in file.entries]
        return sorted(_without_twins(found), key=lambda entry: (_key(entry.id), str(entry.path)))

    def _paths(self) -> list[Path]:
        try:
            found = sorted(self.directory.iterdir())
        except FileNotFoundError:
            return []
        except OSError as error:
            raise AgentFileError(
                f"{self.directory}: cannot list agents: {error.strerror}. Expected a directory (--agents-dir)."
            ) from error
        return [each for each in found if each.suffix == ".py" and _may_hold_agents(each.name) and each.is_file()]

    def _current(self, path: Path) -> _File:
        known = self._known.get(path)
        try:
            seen = path.stat()
            signature = seen.st_mtime_ns, seen.st_size, seen.st_ino
            if known is not None and known.signature == signature:
                return known
            source = path.read_bytes()
        except OSError as error:
            return _File(None, "", None, [_broken(path, f"{path}: cannot be read: {error.strerror}")])
        digest = hashlib.sha256(source).hexdigest()
        if known is not None and known.digest == digest:
            return replace(known, signature=signature)
        if known is not None:
            _forget(known)
        return _imported(path, source, signature, digest)


@dataclass(frozen=True)
class _File:
    """One file as it was imported; `module` is its name in `sys.modules`."""

    signature: tuple[int, int, int] | None
    digest: str
    module: str | None
    entries: list[AgentEntry]


def _may_hold_agents(name: str) -> bool:
    return not name.startswith(("_", ".")) and name != "types.py"


def _imported(path: Path, source: bytes, signature: tuple[int, int, int], digest: str) -> _File:
    """Run the file as a module of a name that nothing else has.

    The source is compiled here, because Python's cached bytecode misses an edit of the same size in the same second.
    """
    place = hashlib.sha256(str(path.absolute()).encode("utf-8", "surrogateescape")).hexdigest()[:12]
    module = ModuleType(f"_btruntime_agent_{place}_{digest[:12]}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # dataclasses and typing look there while the file runs
    try:
        exec(compile(source, str(path), "exec"), module.__dict__)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a person's file may raise anything
        sys.modules.pop(module.__name__, None)
        return _File(signature, digest, None, [_broken(path, located(error, path))])
    return _File(signature, digest, module.__name__, _entries(module, path))


def _forget(file: _File) -> None:
    if file.module is not None:
        sys.modules.pop(file.module, None)


def _entries(module: ModuleType, path: Path) -> list[AgentEntry]:
    own = [each for each in vars(module).values() if isinstance(each, type) and each.__module__ == module.__name__]
    agents = [each for each in dict.fromkeys(own) if issubclass(each, Agent) and not each.__name__.startswith("_")]
    parents = {base for each in agents for base in each.__mro__[1:]}
    agents = [each for each in agents if not (inspect.isabstract(each) and each in parents)]
    if not agents:
        return [_broken(path, f"{path}: defines no subclass of btruntime.Agent. A file that is none starts with _.")]
    return [_entry(each, path) for each in agents]


def _entry(cls: type[Agent], path: Path) -> AgentEntry:
    try:
        agent = _created(cls, path)
        agent_id, name = _identity(agent, path)
        listed_skills(agent)
    except AgentFileError as error:
        return _broken(path, str(error))
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a person's class may raise anything
        return _broken(path, located(error, path))
    return AgentEntry(agent_id, name, path, cls, None)


def _created(cls: type[Agent], path: Path) -> Agent:
    missing = sorted(getattr(cls, "__abstractmethods__", ()))
    if missing:
        raise AgentFileError(f"{path}: class {cls.__name__} lacks {', '.join(missing)}.")
    try:
        return cls()
    except (Exception, SystemExit) as error:
        raise AgentFileError(located(error, path)) from error


def _identity(agent: Agent, path: Path) -> tuple[str, str]:
    agent_id: object = agent.id
    name: object = agent.display_name
    where = f"{path}: class {type(agent).__name__}"
    if not isinstance(agent_id, str) or not _ID.fullmatch(agent_id):
        raise AgentFileError(
            f"{where}: id is {agent_id!r:.80}, expected letters, digits, '-', '_' and '.', 64 at most, "
            "as a property or a class attribute."
        )
    if not isinstance(name, str) or not name.strip():
        raise AgentFileError(f"{where}: display_name is {name!r:.80}, expected a text that is not empty.")
    return agent_id, name


def _broken(path: Path, problem: str) -> AgentEntry:
    return AgentEntry(path.stem, path.stem, path, None, problem)


def _without_twins(entries: list[AgentEntry]) -> list[AgentEntry]:
    """Agents that share an id with another become problems, each naming the others."""
    by_id: dict[str, list[AgentEntry]] = defaultdict(list)
    for entry in entries:
        if entry.problem is None:
            by_id[_key(entry.id)].append(entry)
    return [_twin(entry, by_id[_key(entry.id)]) if len(by_id[_key(entry.id)]) > 1 else entry for entry in entries]


def _twin(entry: AgentEntry, same: list[AgentEntry]) -> AgentEntry:
    if entry.problem is not None or entry.cls is None:
        return entry
    others = ", ".join(_whereabouts(each) for each in same if each is not entry)
    problem = f"{_whereabouts(entry)}: agent id {entry.id!r} is also that of {others}. Change one of them."
    return replace(entry, cls=None, problem=problem)


def _whereabouts(entry: AgentEntry) -> str:
    return f"{entry.path} (class {entry.cls.__name__})" if entry.cls is not None else str(entry.path)


def _key(agent_id: str) -> str:
    return agent_id.replace("-", "_")
