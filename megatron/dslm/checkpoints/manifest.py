"""The list of a checkpoint's files with their sizes and checksums: what is complete is what agrees with it."""

import hashlib
import json
import os
import stat
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from dslm_patches.errors import UserError

MANIFEST = "manifest.json"
_NEEDED = ("arguments.json", "metadata.json")
"""Read by name, so they must be plain files of the folder like all that the manifest names."""
_BLOCK_BYTES = 1 << 20
_FILES_AT_ONCE = 2


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
    """
    try:
        _check_regular(folder, MANIFEST)
        with open(os.path.join(folder, MANIFEST), encoding="utf-8") as file:
            files = json.load(file)["files"]
        missing = [name for name in _NEEDED if name not in files]
        if missing:
            raise UserError(f"does not name {', '.join(missing)}")
        for name, told in files.items():
            if os.path.basename(name) != name or name in ("", ".", ".."):
                raise UserError(f"names {name!r}, which is not a file in it")
            int(told["bytes"]), str(told["sha256"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"its {MANIFEST} is missing or damaged ({error})") from None
    return dict(files)


def require_sizes(folder: str, files: dict[str, dict[str, Any]]) -> None:
    """Raises OSError where a file is not here in full length: other ranks wrote it to a disk of their own."""
    for name, told in files.items():
        path = os.path.join(folder, name)
        if not os.path.isfile(path) or os.path.getsize(path) != told["bytes"]:
            raise OSError(f"{path} is not here as it was written: --save must be a folder that all ranks share")


def check_sizes(folder: str) -> str | None:
    """What is wrong with a checkpoint folder, None if all files of its manifest are there in full length."""
    if os.path.islink(folder):
        return "it is a link: links are not followed"
    try:
        files = read_manifest(folder)
        for name, told in files.items():
            _check_regular(folder, name)
            size = os.path.getsize(os.path.join(folder, name))
            if size != told["bytes"]:
                raise UserError(f"its {name} has {size} bytes of {told['bytes']}")
    except (OSError, ValueError) as error:
        return str(error)
    return None


def check_digests(folder: str, names: Iterable[str]) -> str | None:
    """What is wrong with the content of these files of a checkpoint folder, None if nothing is."""
    try:
        files, wanted = read_manifest(folder), list(names)
        with ThreadPoolExecutor(_FILES_AT_ONCE) as pool:
            found = pool.map(digest, [os.path.join(folder, name) for name in wanted])
            for name, told in zip(wanted, found, strict=True):
                if told["sha256"] != files[name]["sha256"]:
                    return f"its {name} does not agree with its checksum"
    except (OSError, ValueError) as error:
        return str(error)
    return None


def write_synced(path: str, text: str) -> None:
    """A new file, on the disk when this returns. What stands in its place, a link say, is removed, not followed."""
    if os.path.lexists(path):
        os.unlink(path)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
    with open(handle, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(path: str) -> None:
    """Puts the names in a folder on the disk."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _check_regular(folder: str, name: str) -> None:
    try:
        mode = os.lstat(os.path.join(folder, name)).st_mode
    except FileNotFoundError:
        raise UserError(f"its {name} is missing") from None
    if not stat.S_ISREG(mode):
        raise UserError(f"its {name} is not a plain file: links are not followed")
