"""Commands on a machine that is lent for minutes: in order of worth, each with a limit, results as they come.

    python -m studies.battery --out OUT [--done OLD] [--seconds 540] [--parts NAME ...]

A part that ended, well or not, or was cut at its limit, stands in OUT/NAME.json with its log in OUT/NAME.log and its
files in OUT/NAME.tar.gz. Parts that stand in OLD, of an earlier call, are not run again.
"""

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from studies.runs import ROOT

DEEP = "gpt --hidden-size 256 --heads 4 --sequences 64 --layers 192 --steps 200"
"""The paper's depth, 8,192 tokens a step."""
RATES = "--schemes dslm-k0.5 megatron-std0.125 --rates 3e-3 1e-2 --steps 300 --jobs 4 --folder {folder}"


@dataclass(frozen=True)
class Part:
    """A Python command.

    Attributes:
        seconds: its limit.
        command: of Python, in the project's folder; {folder} stands for a folder of its own, which is kept.
    """

    name: str
    seconds: int
    command: str


PARTS = (
    Part("tests", 150, "-m pytest tests/gpu -q -rs -p no:cacheprovider"),
    Part(
        "gpt-192",
        200,
        f"-m studies.rates {DEEP} --schemes dslm-k0.5 megatron --rates 1e-3 3e-3 --jobs 4 --folder {{folder}}",
    ),
    Part(
        "throughput",
        130,
        "benchmarks/pretrain_throughput.py --cases bert-large gpt-medium --peers hf-autocast --quick",
    ),
    Part("rates-24", 60, f"-m studies.rates gpt --layers 24 {RATES}"),
    Part("rates-6", 40, f"-m studies.rates gpt --layers 6 {RATES}"),
    Part("rates-96", 80, f"-m studies.rates gpt --layers 96 {RATES}"),
)
"""In order of worth."""


def run_part(part: Part, out: Path, seconds: float) -> str:
    """Runs a part for at most so many seconds; "done", "failed" or "cut", which is written down with its files."""
    folder = out / part.name
    folder.mkdir(parents=True, exist_ok=True)
    words = [sys.executable, *(word.replace("{folder}", str(folder)) for word in shlex.split(part.command))]
    begun = time.monotonic()
    with (out / f"{part.name}.log").open("w") as log:
        process = subprocess.Popen(words, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            ended = "failed" if process.wait(seconds) else "done"
        except subprocess.TimeoutExpired:
            ended = "cut"
        finally:  # what it started goes with it
            _kill(process)
    with tarfile.open(out / f"{part.name}.tar.gz", "w:gz") as archive:
        for name in ("result.json", "results.json", "log.txt"):
            for path in sorted(folder.rglob(name)):
                archive.add(path, path.relative_to(out))
    found = {"part": part.name, "ended": ended, "seconds": round(time.monotonic() - begun, 1), "command": part.command}
    (out / f"{part.name}.json").write_text(json.dumps(found) + "\n")
    return ended


def run(parts: Sequence[Part], out: Path, done: Path | None, seconds: float) -> dict[str, str]:
    """Runs the parts that were not run before, while the time lasts; how each ended."""
    out.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + seconds
    ends = {}
    for part in parts:
        if any((folder / f"{part.name}.json").is_file() for folder in (out, done) if folder is not None):
            ends[part.name] = "done before"
        elif (left := deadline - time.monotonic()) < part.seconds / 2:
            ends[part.name] = "no time left"
        else:
            ends[part.name] = run_part(part, out, min(part.seconds, left))
        print(f"{part.name}: {ends[part.name]}", flush=True)
    return ends


def _kill(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.wait()


def main() -> None:
    """Exits with 1 where a part failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--done", type=Path, help="folder of an earlier call")
    parser.add_argument("--seconds", type=float, default=540.0, help="for all parts (default 540)")
    parser.add_argument("--parts", nargs="+", choices=[part.name for part in PARTS], help="only these")
    args = parser.parse_args()
    chosen = [part for part in PARTS if args.parts is None or part.name in args.parts]
    ends = run(chosen, args.out.resolve(), args.done, args.seconds)
    sys.exit("failed" in ends.values())


if __name__ == "__main__":
    main()
