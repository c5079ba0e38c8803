"""Whose a folder of curves, traces or results is: a run marks it, and no other run writes over what is there."""

import hashlib
import json
import os
from argparse import Namespace
from pathlib import Path
from typing import Any

from dslm_patches.errors import UserError
from dslm_patches.files import write_aside
from megatron.dslm.checkpoints.folder import saved_iterations
from megatron.dslm.checkpoints.saved_arguments import recorded_settings
from megatron.dslm.config.one_line_parser import spelled

MARK = "run.json"
FOLDERS = ("tensorboard_dir", "trace_dir", "output_dir")
"""Arguments that name such folders, those that a run has."""
_WRITTEN = ("events.out.tfevents.*", "trace.jsonl", "metrics.json", "predictions.jsonl")


def check_owner(args: Namespace, checkpoint: dict[str, Any] | None) -> None:
    """Refuses folders in which another run has written.

    A run that goes on writes where it wrote before, unless it went on from there under another --save already. One that
    begins may do so where its own earlier attempt, with the same settings and the same --save or started by the same
    torchrun, left no checkpoint.

    Args:
        args: checked in all else.
        checkpoint: what the checkpoint that the run goes on from records; None for a run that begins.

    Raises:
        UserError: the flag and the folder are named.
    """
    own = {os.path.realpath(one) for one in (args.save, args.load) if one is not None}
    for name in (*FOLDERS, "save"):
        folder = getattr(args, name, None)
        if folder is None:
            continue
        mark = _read(name, Path(folder))
        if mark is None:
            of_another = os.path.realpath(folder) not in own and bool(saved_iterations(folder))
            other = of_another or (checkpoint is None and is_written_to(folder))
        elif checkpoint is not None:
            other = not _is_of(mark, checkpoint, args)
        else:
            other = not _same_attempt(mark, args)
        if other:
            raise UserError(
                f"{spelled(name)} {folder} holds what another run wrote: give another folder, or remove it"
                + ("" if checkpoint is not None else " (to go on with that run, --load its checkpoints)")
            )


def mark_folders(args: Namespace) -> None:
    """Writes this run's mark, args.run_id, into its folders; on the rank that writes there."""
    for folder in {getattr(args, name) for name in FOLDERS if getattr(args, name, None) is not None}:
        os.makedirs(folder, exist_ok=True)
        write_aside(Path(folder) / MARK, json.dumps({"run": args.run_id, **_attempt(args)}) + "\n")


def is_written_to(folder: str | os.PathLike[str]) -> bool:
    """Whether a run has left curves, traces or results in a folder."""
    return any(True for pattern in _WRITTEN for _ in Path(folder).glob(pattern))


def _attempt(args: Namespace) -> dict[str, Any]:
    settings = json.dumps(recorded_settings(args), sort_keys=True, default=str)
    return {
        "save": None if args.save is None else os.path.realpath(args.save),
        "job": os.environ.get("TORCHELASTIC_RUN_ID"),
        "settings": hashlib.blake2b(settings.encode(), digest_size=16).hexdigest(),
    }


def _is_of(mark: dict[str, Any], checkpoint: dict[str, Any], args: Namespace) -> bool:
    """Whether the run of a checkpoint wrote there last, and no branch of it that went further under another --save."""
    run = checkpoint.get("run_id")
    if run is not None and mark.get("run") != run:
        return False
    branch = mark.get("save")
    if branch is None or (args.save is not None and branch == os.path.realpath(args.save)):
        return True
    return max(saved_iterations(branch), default=0) <= checkpoint["iteration"]


def _same_attempt(mark: dict[str, Any], args: Namespace) -> bool:
    own = _attempt(args)
    if mark.get("settings") != own["settings"]:
        return False
    if own["save"] is not None and mark.get("save") == own["save"]:
        return True
    # Without --rdzv-id every job of torchrun's is called "none".
    named = own["job"] != "none" or int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0
    restarts = int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0")) > 0
    return restarts and named and mark.get("job") == own["job"]


def _read(name: str, folder: Path) -> dict[str, Any] | None:
    try:
        mark = json.loads((folder / MARK).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UserError(f"{spelled(name)}: {folder / MARK} cannot be read: {error}") from None
    return mark if isinstance(mark, dict) else {}
