"""Where checkpoints lie, in Megatron-LM's folder layout, and which of them is the newest complete one.

Read without torch, so that a wrong folder is refused before anything heavy is imported.
"""

import os
import re
import secrets
import shutil

from dslm_patches.errors import UserError
from dslm_patches.files import sync_folder, write_aside
from megatron.dslm.checkpoints.manifest import UnreadError, check_sizes

TRACKER = "latest_checkpointed_iteration.txt"
_COMPLETE = re.compile(r"iter_(\d{7,})")
_ASIDE = re.compile(r"\.?(iter_\d{7,}|latest_checkpointed_iteration\.txt)\.(incomplete|removed)-[0-9a-f]+")


def iteration_folder(root: str, iteration: int) -> str:
    """Where the checkpoint of an iteration lies under `root`."""
    return os.path.join(root, f"iter_{iteration:07d}")


def saved_iterations(root: str) -> list[int]:
    """The iterations of the checkpoints in a folder, complete or not, the newest first."""
    try:
        names = os.listdir(root)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted((int(match[1]) for match in map(_COMPLETE.fullmatch, names) if match), reverse=True)


def find_checkpoint(root: str, flag: str = "--load") -> str | None:
    """The folder of the newest checkpoint in `root` whose files are all there, or None without any checkpoint.

    Raises:
        UserError: there are checkpoints and none is complete, or the folder says that it holds one and does not.
        UnreadError: one could not be read that may be complete, and newer than those that are.
    """
    _refuse_others(root, flag)
    problems = []
    for iteration in saved_iterations(root):
        folder = iteration_folder(root, iteration)
        try:
            problem = check_sizes(folder)
        except UnreadError as error:
            raise UnreadError(f"{flag}: {error}") from None
        if problem is None:
            return folder
        problems.append(f"{os.path.basename(folder)}: {problem}")
    if problems:
        raise none_complete(root, problems, flag)
    tracker = os.path.join(root, TRACKER)
    if os.path.lexists(tracker):
        raise UserError(f"{flag}: {tracker} is there and no checkpoint beside it: was the folder copied whole?")
    return None


def _refuse_others(root: str, flag: str) -> None:
    """Refuses folders that hold a model and would be taken for ones without a checkpoint."""
    if _COMPLETE.fullmatch(os.path.basename(os.path.abspath(root))) and os.path.isdir(root):
        parent = os.path.dirname(os.path.abspath(root))
        raise UserError(f"{flag} {root} is one checkpoint: give the folder that holds it, {flag} {parent}")
    if flag == "--load" and os.path.isfile(os.path.join(root, "config.json")) and not saved_iterations(root):
        raise UserError(f"{flag} {root} holds a Hugging Face model: give it as --pretrained-checkpoint")


def none_complete(root: str, problems: list[str], flag: str) -> UserError:
    """The error of a folder whose checkpoints are all damaged."""
    return UserError(f"{flag}: {root} holds no complete checkpoint ({'; '.join(problems)})")


def begin_folder(root: str, iteration: int) -> str:
    """A new folder beside the checkpoints in which one of them is written; what killed runs left there is removed.

    Its name is its own, so that a writer that outlived a killed run cannot write into it.
    """
    os.makedirs(root, exist_ok=True)
    for name in filter(_ASIDE.fullmatch, os.listdir(root)):
        _remove(os.path.join(root, name))
    aside = f"{iteration_folder(root, iteration)}.incomplete-{secrets.token_hex(4)}"
    os.mkdir(aside)
    return aside


def publish_folder(aside: str, root: str, iteration: int) -> str:
    """Makes a written folder the checkpoint of its iteration, and the latest; where it then lies.

    One rename makes it current: whoever looks, at any moment, finds whole checkpoints only.
    """
    folder = iteration_folder(root, iteration)
    sync_folder(aside)
    before = _put_away(folder)
    os.rename(aside, folder)
    sync_folder(root)
    write_aside(os.path.join(root, TRACKER), str(iteration), unique=True, sync=True)
    if before is not None:
        _remove(before)
    return folder


def prune(root: str, iteration: int, keep: int) -> None:
    """Deletes of the checkpoints up to `iteration` the whole ones but for the newest `keep`, and the incomplete ones.

    One that could not be read stays, and counts for nothing. So do all later ones, which this run did not write: it
    passed them over as damaged, and will replace them, or somebody put them there meanwhile.
    """
    whole = 0
    for number in saved_iterations(root):
        if number > iteration:
            continue
        folder = iteration_folder(root, number)
        try:
            is_whole = check_sizes(folder) is None
        except UnreadError:
            continue
        whole += is_whole
        if not is_whole or whole > keep:
            discard(folder)


def keep_only(root: str, iteration: int) -> None:
    """Deletes all checkpoints but one, later ones too: for a folder of the best, where who looks takes the newest."""
    for number in saved_iterations(root):
        if number != iteration:
            discard(iteration_folder(root, number))


def discard(folder: str) -> None:
    """Takes a checkpoint away, at once for whoever looks. A link is removed, not followed."""
    away = _put_away(folder)
    if away is not None:
        _remove(away)


def _put_away(folder: str) -> str | None:
    if not os.path.lexists(folder):
        return None
    away = f"{folder}.removed-{secrets.token_hex(4)}"
    os.rename(folder, away)
    return away


def _remove(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path, ignore_errors=True)
    else:
        os.unlink(path)
