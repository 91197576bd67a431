"""Writing an imported policy as a run of a skill, whole or not at all."""

from __future__ import annotations

import shutil
from pathlib import Path
from secrets import token_hex

from foundation.files import fsync_dir
from policies.checkpoint import RunNotes, save
from policies.importers.imported import ImportedPolicy, PolicyImportError
from policies.manifest import checkpoint_name


def install(imported: ImportedPolicy, skill_dir: Path, run_id: str, *, software: str = "") -> Path:
    """Write the policy into `<skill_dir>/<run_id>/`; built under a hidden name, and there only when it is complete.

    Args:
        imported: the policy.
        skill_dir: exists.
        run_id: names the new directory; the caller has checked that it is a plain name.
        software: version of the code that imports.

    Returns:
        The run's directory.

    Raises:
        PolicyImportError: something is called that already, or the directory cannot be made.
        CheckpointError, StatisticsError: the disk refuses the files.
    """
    target = skill_dir / run_id
    if target.exists():
        raise PolicyImportError(f"{target} exists already. Choose another name with --run-id.")
    building = skill_dir / f".importing-{token_hex(8)}"
    try:
        building.mkdir()
        try:
            save(
                building,
                imported.step,
                imported.state_dict,
                imported.statistics,
                imported.spec,
                imported.config,
                _notes(imported, software),
            )
            building.rename(target)
        except BaseException:
            shutil.rmtree(building, ignore_errors=True)
            raise
        fsync_dir(skill_dir)
    except OSError as error:
        raise PolicyImportError(f"{target} cannot be written: {error.strerror or error}.") from error
    return target


def _notes(imported: ImportedPolicy, software: str) -> RunNotes:
    source = imported.provenance
    return RunNotes(
        metrics={
            "step": imported.step,
            "finished": True,
            "checkpoint": checkpoint_name(imported.step),
            "execution": dict(imported.execution),
        },
        software=software,
        origin={
            "format": source.format,
            "source": source.source,
            "files": dict(source.files),
            "statistics": source.statistics,
            "notes": list(imported.notes),
        },
    )
