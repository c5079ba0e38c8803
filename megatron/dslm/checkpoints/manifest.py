"""The list of a checkpoint's files with their sizes and checksums: what is complete is what agrees with it."""

import hashlib
import json
import os
import stat
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from dslm_patches.errors import UserError
from dslm_patches.files import write_synced

MANIFEST = "manifest.json"
_NEEDED = ("arguments.json", "metadata.json")
"""Read by name, so they must be plain files of the folder like all that the manifest names."""
_BLOCK_BYTES = 1 << 20
_FILES_AT_ONCE = 2


class UnreadError(UserError):
    """A file that is there could not be read, by a fault of the disk, the network or a limit: nothing is known of it.

    It is not damaged for that, so such a checkpoint is neither passed over for an older one nor deleted. Told like a
    user's mistake, in one line with exit code 2: whoever runs the job can look after the disk, or move the folder away.
    """


def digest(path: str) -> dict[str, Any]:
    """Size in bytes and SHA-256 of a file."""
    checksum = hashlib.sha256()
    size = 0
    with open(path, "rb") as file:
        while block := file.read(_BLOCK_BYTES):
            checksum.update(block)
            size += len(block)
    return {"bytes": size, "sha256": checksum.hexdigest()}


def write_manifest(folder: str, digests: dict[str, dict[str, Any]]) -> None:
    """Writes and syncs the manifest of a folder: `digests` by file name, and those of all its other files."""
    missing = [name for name in os.listdir(folder) if name not in digests]
    files = digests | {name: digest(os.path.join(folder, name)) for name in missing}
    write_synced(os.path.join(folder, MANIFEST), json.dumps({"files": dict(sorted(files.items()))}, indent=1) + "\n")


def read_manifest(folder: str) -> dict[str, dict[str, Any]]:
    """Sizes and checksums by file name.

    Raises:
        UserError: there is none, or it is not one.
        UnreadError: it could not be read.
    """
    _regular_size(folder, MANIFEST)
    with _reading(folder, MANIFEST), open(os.path.join(folder, MANIFEST), "rb") as file:
        content = file.read()
    try:
        files = json.loads(content)["files"]
        missing = [name for name in _NEEDED if name not in files]
        if missing:
            raise UserError(f"does not name {', '.join(missing)}")
        for name, entry in files.items():
            if os.path.basename(name) != name or name in ("", ".", ".."):
                raise UserError(f"names {name!r}, which is not a file in it")
            int(entry["bytes"]), str(entry["sha256"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"its {MANIFEST} is damaged ({error})") from None
    return dict(files)


def require_sizes(folder: str, files: dict[str, dict[str, Any]]) -> None:
    """Raises OSError where a file is not here in full length: other ranks wrote it to a disk of their own."""
    for name, entry in files.items():
        path = os.path.join(folder, name)
        if not os.path.isfile(path) or os.path.getsize(path) != entry["bytes"]:
            raise OSError(f"{path} is not here as it was written: --save must be a folder that all ranks share")


def check_sizes(folder: str) -> str | None:
    """What is wrong with a checkpoint folder, None if all files of its manifest are there in full length.

    Raises:
        UnreadError: it could not be found out.
    """
    if os.path.islink(folder):
        return "it is a link: links are not followed"
    try:
        for name, entry in read_manifest(folder).items():
            size = _regular_size(folder, name)
            if size != entry["bytes"]:
                return f"its {name} has {size} bytes of {entry['bytes']}"
    except UnreadError:
        raise
    except UserError as error:
        return str(error)
    return None


def check_digests(folder: str, names: Iterable[str]) -> str | None:
    """What is wrong with the content of these files of a checkpoint folder, None if nothing is.

    Raises:
        UnreadError: it could not be found out.
    """

    def checksum(name: str) -> Any:
        with _reading(folder, name):
            return digest(os.path.join(folder, name))["sha256"]

    try:
        files, wanted = read_manifest(folder), list(names)
        with ThreadPoolExecutor(_FILES_AT_ONCE) as pool:
            for name, found in zip(wanted, pool.map(checksum, wanted), strict=True):
                if found != files[name]["sha256"]:
                    return f"its {name} does not agree with its checksum"
    except UnreadError:
        raise
    except UserError as error:
        return str(error)
    return None


def _regular_size(folder: str, name: str) -> int:
    """The size in bytes of a plain file of the folder."""
    with _reading(folder, name):
        found = os.lstat(os.path.join(folder, name))
    if not stat.S_ISREG(found.st_mode):
        raise UserError(f"its {name} is not a plain file: links are not followed")
    return found.st_size


@contextmanager
def _reading(folder: str, name: str) -> Iterator[None]:
    """A file that is missing, which is damage, told apart from one that could not be read."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"its {name} is missing") from None
    except OSError as error:
        raise UnreadError(
            f"{os.path.join(folder, name)} could not be read: {error.strerror or error}; the checkpoint may be whole: "
            f"try again, or move {folder} away to do without it"
        ) from None
