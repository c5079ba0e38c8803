"""Parts run in their order within the time, and what ended is not run again."""

import json
import tarfile
from pathlib import Path

import psutil

from studies.battery import PARTS, Part, run

WRITES = "-c \"import pathlib; pathlib.Path('{folder}/log.txt').write_text('found'); print('told')\""
HANGS = (
    "-I -S -c \"import subprocess, pathlib, time; p = subprocess.Popen(['sleep', '600']);"
    " pathlib.Path('{folder}/log.txt').write_text(str(p.pid)); time.sleep(600)\""
)


def test_parts_end_in_time_and_are_not_run_again(tmp_path: Path) -> None:
    parts = [
        Part("writes", 60, WRITES),
        Part("fails", 60, '-c "raise SystemExit(3)"'),
        Part("hangs", 6, HANGS),
        Part("long", 10_000, "-c pass"),
    ]
    ends = run(parts, tmp_path / "first", None, 120.0)
    assert ends == {"writes": "done", "fails": "failed", "hangs": "cut", "long": "no time left"}
    found = json.loads((tmp_path / "first" / "writes.json").read_text())
    assert (found["part"], found["ended"]) == ("writes", "done")
    assert (tmp_path / "first" / "writes.log").read_text() == "told\n"
    with tarfile.open(tmp_path / "first" / "hangs.tar.gz") as archive:
        (member,) = archive.getmembers()
        child = int(archive.extractfile(member).read())  # type: ignore[union-attr]
    gone = not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE
    assert gone, "what a part started goes with it"
    ends = run(parts, tmp_path / "second", tmp_path / "first", 120.0)
    assert set(ends.values()) == {"done before", "no time left"}


def test_the_parts_fit_into_two_calls() -> None:
    assert sum(part.seconds for part in PARTS) <= 11 * 60
    assert sum(part.seconds for part in PARTS[:-1]) + PARTS[-1].seconds > 9 * 60, "one call would do"
