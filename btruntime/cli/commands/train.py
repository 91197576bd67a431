"""Train a policy for a skill, list its runs, or switch the skill to another run."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from btruntime.cli.options import add_json, add_skills_dir, numbers, store_of
from btruntime.cli.output import print_json, say, tell

if TYPE_CHECKING:
    from skills.store import SkillEntry


def configure(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    start = actions.add_parser("run", help="train on the skill's episodes, then activate the result")
    start.add_argument("--preset", help="hyperparameters to start from (default: by device, or the resumed run's)")
    start.add_argument(
        "--hold-out",
        type=numbers,
        metavar="N,N,...",
        help="numbers of episodes to keep from training, for 'btruntime evaluate' to measure on",
    )
    start.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="one value; repeatable")
    start.add_argument("--run-id", metavar="ID", help="name of the run (default: the next free number)")
    start.add_argument("--resume", metavar="ID", help="continue an interrupted run, as it was begun")
    start.add_argument("--skip-broken", action="store_true", help="leave out episodes that cannot be read")
    start.add_argument("--no-activate", action="store_true", help="do not switch the skill to the new run")
    listing = actions.add_parser("list", help="runs of a skill")
    switch = actions.add_parser("activate", help="switch the skill to a run")
    actions.add_parser("options", help="every hyperparameter with its default and what it does")
    for each in (start, listing, switch):
        each.add_argument("skill", help="its ID")
        add_skills_dir(each)
        add_json(each)
    switch.add_argument("run_id", metavar="RUN")


def run(args: argparse.Namespace) -> int:
    if args.action == "options":
        return _options()
    entry = store_of(args).get(args.skill)
    if args.action == "list":
        return _list(entry.path, args.json)
    if args.action == "activate":
        from btruntime.training.local import activate_run

        activate_run(entry.path, args.run_id)
        say(f"{entry.id} now runs {args.run_id}")
        return 0
    _refuse_untrainable(entry)
    return _train(args, entry.path, str(entry.id))


def _refuse_untrainable(entry: SkillEntry) -> None:
    """A training takes long; that its result cannot be activated is to be known before."""
    from foundation.errors import BtruntimeError

    if entry.problem is not None:
        raise BtruntimeError(entry.problem)
    if entry.kind != "learned":
        raise BtruntimeError(
            f"{entry.id} is a {entry.kind} skill, expected a learned one. Make one with: btruntime skills new NAME."
        )


def _train(args: argparse.Namespace, skill_dir: Path, skill: str) -> int:
    from btruntime.cli.progress import progress_bar
    from btruntime.training.local import TrainingStoppedError, activate_run, train_locally
    from btruntime.training.run_ids import free_run_id
    from btruntime.training.watching import told_to

    run_id = args.resume or args.run_id or free_run_id(skill_dir)
    tell(f"training {skill}, run {run_id}")
    with progress_bar("training", 1.0) as bar:
        errors: list[float] = []
        estimates: list[float] = []

        def on_event(event: Mapping[str, Any]) -> None:
            follow(event)
            if event.get("event") == "validated":
                errors.append(event["l1"])
            if event.get("event") == "estimate":
                estimates.append(event["total_s"])

        follow = told_to(bar.reach, tell)
        try:
            directory = train_locally(
                skill_dir,
                run_id,
                preset=args.preset,
                assignments=[*args.set, *([] if args.hold_out is None else [f"hold_out={list(args.hold_out)}"])],
                resume=args.resume is not None,
                skip_broken=args.skip_broken,
                on_event=on_event,
            )
        except TrainingStoppedError as error:
            tell(f"btruntime: {error}")
            return 128 + error.signal_number
    if not args.no_activate:
        activate_run(skill_dir, run_id)
    say(f"run {run_id} is in {directory}" + ("" if args.no_activate else "; the skill now uses it"))
    if args.json:
        print_json(
            {
                "run_id": run_id,
                "directory": str(directory),
                "l1": errors[-1] if errors else None,
                "estimated_s": estimates[-1] if estimates else None,
                "activated": not args.no_activate,
            }
        )
    return 0


def _list(skill_dir: Path, as_json: bool) -> int:
    from foundation.errors import BtruntimeError
    from policies.manifest import MANIFEST_FILE, read_run

    rows: list[dict[str, object]] = []
    for manifest_path in sorted(skill_dir.glob(f"*/{MANIFEST_FILE}")):
        try:
            metrics = read_run(manifest_path.parent).metrics
        except BtruntimeError as error:
            rows.append({"run_id": manifest_path.parent.name, "problem": str(error)})
            continue
        best = metrics.get("best")
        rows.append(
            {
                "run_id": manifest_path.parent.name,
                "step": metrics.get("step"),
                "finished": metrics.get("finished", False),
                "l1": best.get("l1") if isinstance(best, dict) else None,
                "checkpoint": metrics.get("checkpoint"),
            }
        )
    if as_json:
        print_json({"runs": rows})
        return 0
    for row in rows:
        if "problem" in row:
            say(f"{row['run_id']}: {row['problem']}")
        else:
            state = "finished" if row["finished"] else "unfinished"
            say(f"{row['run_id']:<8} {state:<10} step {row['step']!s:<8} l1 {row['l1']}  {row['checkpoint']}")
    if not rows:
        say("No runs yet.")
    return 0


def _options() -> int:
    from btruntime.training.trainer.config import presets

    defaults = presets()["act-default"]
    for name, field in type(defaults).model_fields.items():
        say(f"{name} = {getattr(defaults, name)}")
        say(f"    {field.description}")
    return 0
