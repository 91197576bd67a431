"""Bring a policy of another program into a skill, write one in another program's form, or show what one sees.

Imported are checkpoints of the reference robot (.pth, or the directory of a run), ACT policies of LeRobot (a
directory) and checkpoints of the original ACT (.ckpt). Nothing in such a file is run.
"""

from __future__ import annotations

import argparse
import secrets
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from btruntime.cli.options import add_json, add_skills_dir, store_of
from btruntime.cli.output import print_json, say, tell

if TYPE_CHECKING:
    from policies.act.config import ACTConfig
    from policies.importers import ImportedPolicy
    from policies.manifest import RunManifest
    from policies.spec import InputSpec
    from skills.store import SkillEntry, SkillStore

_COLOUR = (
    "channel order that the network sees (default: rgb, which checkpoints trained from uploaded videos see; those "
    "trained from .h5 files of the reference robot, or exported for it, see bgr)"
)


def configure(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    bring = actions.add_parser("import", help="into a skill, as a run of it")
    bring.add_argument("path", type=Path, help="a checkpoint or its directory")
    bring.add_argument("--skill", required=True, metavar="ID", help="the skill; a new name makes a new one")
    bring.add_argument("--run-id", metavar="ID", help="name of the run (default: the next free number)")
    bring.add_argument("--no-activate", action="store_true", help="do not switch the skill to it")
    write = actions.add_parser("export", help="in another program's form")
    write.add_argument("skill", help="its ID")
    write.add_argument("--run", metavar="RUN", help="which run (default: the one that the skill uses)")
    write.add_argument("--form", required=True, choices=("reference", "onnx"), help="the form")
    write.add_argument(
        "--output", "-o", type=Path, required=True, metavar="PATH", help="a new directory (reference), a file (onnx)"
    )
    write.add_argument(
        "--colour", choices=("rgb", "bgr"), default="rgb", help="onnx: order of the pictures it will get (default: rgb)"
    )
    show = actions.add_parser("show", help="what a policy sees and gives")
    show.add_argument("policy", metavar="SKILL|PATH", help="a skill's ID, a run's directory, or something to import")
    show.add_argument("--run", metavar="RUN", help="which run of the skill (default: the one that it uses)")
    for each in (bring, show):
        each.add_argument(
            "--spec", type=Path, metavar="FILE", help="JSON or YAML that says what the checkpoint does not"
        )
        each.add_argument("--colour", choices=("rgb", "bgr"), help=_COLOUR)
    for each in (bring, write, show):
        add_skills_dir(each)
        add_json(each)


def run(args: argparse.Namespace) -> int:
    if args.action == "import":
        return _import(args)
    return _export(args) if args.action == "export" else _show(args)


def _import(args: argparse.Namespace) -> int:
    from btruntime import __version__
    from btruntime.training.local import activate_run
    from btruntime.training.run_ids import check_run_id, free_run_id
    from policies.importers import install

    if args.run_id is not None:
        check_run_id(args.run_id)
    imported = _read(args)
    store = store_of(args)
    entry, is_new = _target(store, args.skill)
    try:
        run_id = args.run_id or free_run_id(entry.path)
        directory = install(imported, entry.path, run_id, software=f"btruntime {__version__}")
    except BaseException:
        if is_new:
            _forget(entry.path)
        raise
    if not args.no_activate:
        activate_run(entry.path, run_id)
    for note in imported.notes:
        tell(f"note: {note}")
    used = "" if args.no_activate else f"; {entry.id} now uses it"
    say(f"{imported.provenance.format} policy is in {directory}{used}")
    if args.json:
        print_json(
            {
                "skill": str(entry.id),
                "run_id": run_id,
                "directory": str(directory),
                "format": imported.provenance.format,
                "activated": not args.no_activate,
                "notes": list(imported.notes),
            }
        )
    return 0


def _read(args: argparse.Namespace, path: Path | None = None) -> ImportedPolicy:
    """The foreign policy, all that it says checked; nothing is written."""
    from policies.importers import ImportOptions, load_description, recognise
    from skills.actions import action_spec_of

    path = path or args.path
    importer = recognise(path)
    options = ImportOptions(load_description(args.spec) if args.spec else None, args.colour)
    imported = importer.read(path, options)
    action_spec_of(imported.spec)
    return imported


def _target(store: SkillStore, name: str) -> tuple[SkillEntry, bool]:
    from skills.ids import UnknownSkillError
    from skills.metadata import LearnedExecution, MetadataError

    try:
        entry = store.get(name)
    except UnknownSkillError:
        return store.create(name), True
    if entry.metadata is None or not isinstance(entry.metadata.execution, LearnedExecution):
        why = entry.problem or f"it is a {entry.kind} skill; only learned ones have policies."
        raise MetadataError(f"{entry.id} cannot take a policy: {why}")
    return entry, False


def _forget(directory: Path) -> None:
    """Take away a skill that was made here and got nothing."""
    from skills.metadata import METADATA_NAME

    files = [file for file in directory.rglob("*") if file.is_file() and file != directory / METADATA_NAME]
    if not any(file.stat().st_size for file in files):
        shutil.rmtree(directory.rename(directory.with_name(f".unused-{secrets.token_hex(8)}")))


def _export(args: argparse.Namespace) -> int:
    from policies.checkpoint import load
    from policies.exporting import export_onnx, export_reference

    checkpoint = load(_checkpoint_of(store_of(args).get(args.skill), args.run))
    if args.form == "reference":
        exported = export_reference(checkpoint, args.output)
    else:
        exported = export_onnx(checkpoint, args.output, colour=args.colour)
    for note in exported.notes:
        tell(f"note: {note}")
    for file in exported.files:
        say(str(file))
    if args.json:
        print_json({"files": [str(file) for file in exported.files], "notes": list(exported.notes)})
    return 0


def _checkpoint_of(entry: SkillEntry, run_id: str | None) -> Path:
    """The checkpoint of a run, by default of the one that the skill uses."""
    from btruntime.training.local import chosen_checkpoint
    from foundation.files import confined
    from policies.manifest import read_run
    from skills.metadata import LearnedExecution, MetadataError

    where = f"{entry.path.name}: the run"
    if run_id is not None:
        directory = confined(entry.path, run_id, what=where)
        return confined(directory, chosen_checkpoint(read_run(directory), run_id), what=where)
    execution = entry.metadata.execution if entry.metadata is not None else None
    if not isinstance(execution, LearnedExecution) or execution.checkpoint is None:
        raise MetadataError(f"{entry.id} uses no policy yet. Train one, import one, or name a run with --run.")
    return confined(entry.path, execution.checkpoint, what=f"{entry.path.name}: execution.checkpoint")


def _show(args: argparse.Namespace) -> int:
    from policies.manifest import MANIFEST_FILE, read_run

    path = Path(args.policy)
    directory = path.parent if path.is_file() else path
    if (directory / MANIFEST_FILE).is_file():
        shown = _of_run(directory, path.name if path.is_file() else None, read_run(directory))
    elif path.exists():
        shown = _of_foreign(_read(args, path))
    else:
        checkpoint = _checkpoint_of(store_of(args).get(args.policy), args.run)
        shown = _of_run(checkpoint.parent, checkpoint.name, read_run(checkpoint.parent))
    if args.json:
        print_json(shown)
    else:
        _print(shown)
    return 0


def _of_run(directory: Path, checkpoint: str | None, manifest: RunManifest) -> dict[str, Any]:
    from pydantic import ValidationError

    from btruntime.training.local import chosen_checkpoint
    from foundation.described import first_problem
    from policies.act.config import ACTConfig
    from policies.manifest import MANIFEST_FILE, ManifestError

    try:
        config = ACTConfig.model_validate(manifest.config)
    except ValidationError as error:
        raise ManifestError(f"{directory / MANIFEST_FILE}: config: {first_problem(error)}.") from error
    name = checkpoint or chosen_checkpoint(manifest, directory.name)
    origin = dict(manifest.origin)
    return {
        "path": str(directory / name),
        "format": origin.get("format", "btruntime"),
        **_seen(manifest.input_spec, config),
        "statistics": origin.get("statistics", "the episodes that it was trained on"),
        "sha256": manifest.entry(name).sha256,
        "source": origin.get("source"),
        "notes": origin.get("notes", []),
    }


def _of_foreign(imported: ImportedPolicy) -> dict[str, Any]:
    source = imported.provenance
    return {
        "path": source.source,
        "format": source.format,
        **_seen(imported.spec, imported.config),
        "statistics": source.statistics,
        "sha256": next(iter(source.files.values())),
        "source": source.source,
        "notes": list(imported.notes),
    }


def _seen(spec: InputSpec, config: ACTConfig) -> dict[str, Any]:
    return {
        "robot": spec.robot,
        "cameras": [camera.model_dump(mode="json") for camera in spec.cameras],
        "colour": spec.colour,
        "joints": list(spec.joint_names),
        "action": [dict(dim) for dim in spec.action],
        "chunk_size": spec.chunk_size,
        "data_frequency_hz": spec.data_frequency_hz,
        "parameters": _parameters(config),
        "config": config.model_dump(mode="json"),
    }


def _parameters(config: ACTConfig) -> int:
    """How many numbers were trained; the statistics do not count."""
    import torch

    from policies.act.model import ACT

    with torch.device("meta"):
        return sum(tensor.numel() for tensor in ACT(config).parameters())


def _print(shown: dict[str, Any]) -> None:
    say(f"{shown['path']}  ({shown['format']}, robot {shown['robot']})")
    for camera in shown["cameras"]:
        say(f"camera      {camera['name']}  {camera['width']}x{camera['height']} {shown['colour'].upper()}")
    say(f"joints      {', '.join(shown['joints'])}  (rad)")
    for number, dim in enumerate(shown["action"]):
        unit = "" if dim.get("unit") == "1" else f" in {dim.get('unit')}"
        say(f"{'action' if number == 0 else '':<11} {dim.get('name')}  {dim.get('kind')}{unit}")
    seconds = shown["chunk_size"] / shown["data_frequency_hz"]
    say(f"chunk       {shown['chunk_size']} actions at {shown['data_frequency_hz']:g} Hz: {seconds:.2f} s")
    say(f"parameters  {shown['parameters']:,}")
    say(f"statistics  {shown['statistics']}")
    say(f"sha256      {shown['sha256']}")
    for note in shown["notes"] if isinstance(shown["notes"], list) else []:
        say(f"note        {note}")
