"""What a checkpoint records of the run that wrote it, and whether another run can go on from there.

Read without torch, so that a wrong folder is refused before anything heavy is imported.
"""

import json
import os
from argparse import Namespace
from collections.abc import Iterable
from typing import Any

from dslm_patches.errors import UserError
from dslm_patches.files import write_synced
from dslm_patches.schemes import SchemeOptions
from megatron.dslm.checkpoints.settings import ARCHITECTURE, CLASSES, DROPOUT, LAYOUT, SCHEME, START, OnResume
from megatron.dslm.config.one_line_parser import spelled
from megatron.dslm.data.content import PATH_FLAGS
from megatron.dslm.models.family import NAMES, family

ARGUMENTS = "arguments.json"
_BY_CONTENT = ("vocab_file", "merge_file")
"""Compared by the vocabulary's digest, wherever it lies."""
_EXTRA = ("train_iters", "lr_decay_is_derived", "run_id", *LAYOUT)
"""Recorded beside what is compared."""
_ORDER = "epochs"
"""How samples are ordered: whole epochs, whatever --train-iters. Checkpoints from before say nothing."""


def recorded_settings(args: Namespace) -> dict[str, Any]:
    """Plain values of every setting that shapes a run."""
    names = [*CLASSES[OnResume.NEVER], *CLASSES[OnResume.COURSE], *CLASSES[OnResume.BY_NAME]]
    return {name: getattr(args, name, None) for name in names} | {
        "contents": getattr(args, "contents", {}),
        "data_order": _ORDER,
        "vocab_size": args.tokenizer.vocab_size,
        "tokenizer_type": args.tokenizer.tokenizer_type,
        "tokenizer_sha256": args.tokenizer.unique_identifiers["content_sha256"],
    }


def recorded_arguments(args: Namespace, iteration: int) -> dict[str, Any]:
    """Plain values that tell a later run, or a converter, what this one was."""
    extra = {name: getattr(args, name, None) for name in _EXTRA}
    return {**recorded_settings(args), **extra, "iteration": iteration}


def write_arguments(folder: str, args: Namespace, iteration: int) -> None:
    """Writes `recorded_arguments` into a checkpoint folder."""
    write_synced(os.path.join(folder, ARGUMENTS), json.dumps(recorded_arguments(args, iteration), indent=1) + "\n")


def read_arguments(folder: str, flag: str = "--load") -> dict[str, Any]:
    """What a checkpoint folder records of the run that wrote it.

    Raises:
        UserError: it records nothing, or not all of it.
    """
    path = os.path.join(folder, ARGUMENTS)
    try:
        with open(path, encoding="utf-8") as file:
            saved = json.load(file)
        if not isinstance(saved, dict):
            raise UserError("not an object")
    except (OSError, ValueError) as error:
        raise UserError(f"{flag}: {path} cannot be read: {error}") from None
    if saved.get("model") in NAMES:
        family(saved["model"]).upgrade(saved)
    missing = [name for name in (*ARCHITECTURE, *SCHEME, *DROPOUT, "vocab_size", "iteration") if name not in saved]
    if missing:
        raise UserError(f"{flag}: {path} does not say {', '.join(missing)}")
    if saved["model"] not in NAMES:
        raise UserError(f"{flag}: {path} is of a model {saved['model']!r}: known are {', '.join(NAMES)}")
    return saved


def can_be_overridden(args: Namespace, name: str) -> bool:
    """Whether this program can take a setting over by --override-settings: fine-tuning counts epochs by its batch."""
    fixed = ("global_batch_size",) if hasattr(args, "task") else ()
    return name in CLASSES[OnResume.BY_NAME] and hasattr(args, name) and name not in fixed


def check_resume(args: Namespace, saved: dict[str, Any], folder: str) -> None:
    """Refuses to go on with another model, schedule, order of data or vocabulary than the run began with.

    What --override-opt-param-scheduler and --override-settings take over may differ.

    Raises:
        UserError: the flags that differ are named, with the saved values and what to do.
    """
    now = recorded_settings(args)
    if now["model"] != saved["model"]:
        theirs, ours = family(saved["model"]).title, family(args.model).title
        raise UserError(f"--load: {folder} holds a {theirs}, and this program trains a {ours}")
    if (now["tokenizer_sha256"], now["vocab_size"]) != (
        saved.get("tokenizer_sha256") or now["tokenizer_sha256"],
        saved["vocab_size"],
    ):
        raise UserError(f"--vocab-file {args.vocab_file} is not the vocabulary that the run in {folder} began with")
    never = [*CLASSES[OnResume.NEVER], *(DROPOUT if args.depth_scheme == "dslm" else ())]
    different = _differences([name for name in never if name not in _BY_CONTENT], now, saved)
    if different:
        raise UserError(
            f"--load: {folder} is of another model, scheme or optimizer: {'; '.join(different)}; give those, or "
            "start a new run (weights alone: --pretrained-checkpoint)"
        )
    if not args.override_opt_param_scheduler:
        different = _differences(CLASSES[OnResume.COURSE], now, saved)
        if different and args.lr_warmup_fraction is not None:
            different = [
                one.replace("--lr-warmup-iters", f"--lr-warmup-fraction {args.lr_warmup_fraction:g}, which is")
                for one in different
            ]
        if different:
            raise UserError(
                f"--load: the run in {folder} began with another course: {'; '.join(different)}; give that, or "
                "--override-opt-param-scheduler to change it"
            )
    held = [name for name in CLASSES[OnResume.BY_NAME] if name not in args.override_settings]
    different = _differences(held, now, saved)
    if different:
        names = [one.split()[0].removeprefix("--") for one in different]
        can = all(can_be_overridden(args, name.replace("-", "_")) for name in names)
        raise UserError(
            f"--load: the run in {folder} began with other settings: {'; '.join(different)}; give those, or "
            + (f"--override-settings {' '.join(names)}" if can else "start a new run")
        )


def notes_on_resume(args: Namespace, saved: dict[str, Any], folder: str) -> list[str]:
    """What a run that goes on from a checkpoint has to know: of a decay that ends before it, of an earlier version."""
    notes = []
    ends = args.decay_is_recorded and args.lr_decay_style != "constant"
    if ends and args.train_iters > args.lr_decay_iters:
        notes.append(
            f"warning: --train-iters {args.train_iters} goes beyond the {args.lr_decay_iters} iterations that the "
            f"learning rate decays over, as the run began: the rest is trained at --min-lr {args.min_lr:g} (or with "
            "--override-opt-param-scheduler in another course)"
        )
    if saved.get("task") is None and saved.get("data_order") != _ORDER:
        notes.append(
            f"warning: --load: {folder} is of a version whose order of samples depended on --train-iters: from here on "
            "they come in another order, so that some of this epoch are seen again and others not"
        )
    names = (*CLASSES[OnResume.COURSE], *CLASSES[OnResume.BY_NAME])
    given = [name for name in names if getattr(args, name, None) not in (None, False)]
    unknown = [spelled(name) for name in given if name not in saved]
    if unknown:
        notes.append(f"warning: --load: {folder} does not record {', '.join(unknown)}: taken as given")
    return notes


def _differences(names: Iterable[str], now: dict[str, Any], saved: dict[str, Any]) -> list[str]:
    different = []
    for name in names:
        ours, theirs = now.get(name), saved.get(name)
        if name in now["contents"] and name in saved.get("contents", {}):
            if _plain(name, now["contents"][name]) != _plain(name, saved["contents"][name]):
                same = name in PATH_FLAGS and sorted(now["contents"][name][0]) == sorted(saved["contents"][name][0])
                what = "" if same else ", which holds other data"
                different.append(f"{spelled(name)} {_shown(ours)}{what} (saved: {_shown(theirs)})")
        elif name in saved and _plain(name, ours) != _plain(name, theirs) and not (name in START and ours is None):
            different.append(f"{spelled(name)} {_shown(ours)} (saved: {_shown(theirs)})")
    return different


def _plain(name: str, value: Any) -> Any:
    """A value without what two spellings of the same may differ in: shares that sum up to one, a default left out."""
    if name == "split" and value is not None:
        return _shares([float(share) for share in value.split(",")])
    if name == "init_method_std":
        return SchemeOptions().init_method_std if value is None else value
    if name in PATH_FLAGS and value and isinstance(value[0], list):
        digests, weights = value
        return digests, None if weights is None or len(weights) == 1 else _shares(weights)
    return value


def _shares(weights: list[float]) -> list[float]:
    return [round(weight / sum(weights), 12) for weight in weights]


def _shown(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
