"""The catalogue of bad inputs, each run as a user would run it."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.reliability.bad_inputs import BAD_INPUTS, BadInput
from tests.reliability.site import make_site

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 15.0
BANNER = ("reading ",)


@pytest.fixture(scope="module")
def clean_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site that nothing is done to."""
    folder = tmp_path_factory.mktemp("site")
    make_site(folder)
    return folder


def test_the_catalogue_is_long_and_its_names_differ() -> None:
    assert len(BAD_INPUTS) >= 100
    assert len({bad.name for bad in BAD_INPUTS}) == len(BAD_INPUTS)


@pytest.mark.parametrize("bad", BAD_INPUTS[::8], ids=lambda bad: bad.name)
def test_a_mistake_is_one_line(bad: BadInput, clean_site: Path, tmp_path: Path) -> None:
    check(bad, clean_site, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("bad", [bad for number, bad in enumerate(BAD_INPUTS) if number % 8], ids=lambda bad: bad.name)
def test_every_mistake_is_one_line(bad: BadInput, clean_site: Path, tmp_path: Path) -> None:
    check(bad, clean_site, tmp_path)


def check(bad: BadInput, clean_site: Path, tmp_path: Path) -> None:
    """Runs the program: exit code 2 and one line with what must be named, soon, and no process is left."""
    site = clean_site
    if bad.damage is not None:
        # The same path at a new place: nothing in the site names the place itself.
        site = tmp_path / "site"
        shutil.copytree(clean_site, site, symlinks=True)
        bad.damage(site)
    begun = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, *bad.command(site)],
        cwd=ROOT,
        env={**os.environ, "WORLD_SIZE": str(bad.ranks), "RANK": "0", **bad.environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    _, error = process.communicate(timeout=4 * SECONDS)
    lines = [line for line in error.splitlines() if not line.startswith(BANNER)]
    assert process.returncode == 2, error
    assert len(lines) == 1, error
    for part in bad.named:
        assert part.format(site=site) in lines[0], error
    assert time.monotonic() - begun < SECONDS
    assert not [one for one in psutil.process_iter() if _session(one.pid) == process.pid], "a process is left"


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None
