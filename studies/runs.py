"""Pretraining runs of a study: some at a time, each on a core, resumed where they were cut short, complete ones kept.

A run has a folder with `log.txt`, `board` (TensorBoard, trace.jsonl), `checkpoints` and, when it is complete,
`result.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

from dslm_patches.files import write_aside
from megatron.dslm.checkpoints.folder import find_checkpoint
from megatron.dslm.checkpoints.saved_arguments import read_arguments

ROOT = Path(__file__).resolve().parent.parent
RUNS = ROOT / "runs" / "studies"
SAVES = 6
"""Checkpoints over a run: what is lost where it is cut short."""
STOPPED = re.compile(r"^pretrain_\w+\.py: stopped: (.*)$", re.M)


class StudyError(Exception):
    """A run that ended by anything but its last step or a loss that is not finite."""


@dataclass(frozen=True)
class Run:
    """One pretraining run.

    Attributes:
        name: of its folder.
        model: "bert" or "gpt".
        flags: of the program, without those of folders.
        steps: optimizer steps, --train-iters.
    """

    name: str
    model: str
    flags: tuple[str, ...]
    steps: int


@dataclass
class Result:
    """What became of a run.

    Attributes:
        validation: (step, loss in nats a token) pairs; training: the same, means since the pair before.
        test: of the test split, after the last step; None where the run did not get there.
        unigrams, bigrams: the validation split's n-gram cross entropies.
        stopped: why the program ended it before its last step, None where it did not.
        left: why the study did not go on with it.
    """

    name: str
    flags: list[str]
    steps: int
    validation: list[tuple[int, float]] = field(default_factory=list)
    training: list[tuple[int, float]] = field(default_factory=list)
    test: float | None = None
    unigrams: float | None = None
    bigrams: float | None = None
    stopped: str | None = None
    left: str | None = None

    @property
    def last(self) -> float:
        """The last validation loss; infinite where the run's loss was not finite any more."""
        return self.validation[-1][1] if self.validation and self.stopped is None else float("inf")


def train(run: Run, folder: Path, *, until: int | None = None, keep: bool = False) -> Result:
    """Trains a run in a folder of its own below `folder`, from where it stands to its end, and returns its result.

    Args:
        until: leave after so many steps, with a checkpoint: the result is of the run so far.
        keep: the last checkpoint stays when the run is complete.

    Raises:
        StudyError: the run failed, or its folder holds another run's result.
    """
    place = folder / run.name
    known = _known(run, place)
    if known is not None:
        return known
    place.mkdir(parents=True, exist_ok=True)
    log = place / "log.txt"
    if until is not None and log.is_file():
        saved = find_checkpoint(str(place / "checkpoints"))
        if saved is not None and read_arguments(saved)["iteration"] >= until:
            return read_log(run, log.read_text())
    save = str(place / "checkpoints")
    words = [sys.executable, f"pretrain_{run.model}.py", *run.flags, "--train-iters", str(run.steps)]
    words += ["--save", save, "--load", save, "--keep-last", "1", "--tensorboard-dir", str(place / "board")]
    words += ["--save-interval", str(max(1, run.steps // SAVES))]
    words += [] if until is None or until >= run.steps else ["--exit-interval", str(until)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with log.open("a") as output:
        code = subprocess.run(words, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT).returncode
    result = read_log(run, log.read_text())
    if code != 0 and result.stopped is None:
        raise StudyError(f"{run.name} ended with code {code}: see {log}\n{log.read_text()[-1500:]}")
    if result.stopped is not None or result.test is not None:
        complete(result, folder, keep=keep)
    return result


def complete(result: Result, folder: Path, *, keep: bool = False) -> None:
    """Writes down that a run is complete; its checkpoints go, unless they are to be kept."""
    place = folder / result.name
    write_aside(place / "result.json", json.dumps(asdict(result)) + "\n")
    if not keep:
        shutil.rmtree(place / "checkpoints", ignore_errors=True)


def train_all(
    runs: Sequence[Run], folder: Path, *, jobs: int, until: int | None = None, keep: bool = False
) -> list[Result]:
    """Trains runs, `jobs` at a time, says how far they are, and returns their results in the runs' order.

    Raises:
        StudyError: see `train`; the other runs go on first.
    """
    begun, done = time.monotonic(), 0

    def one(run: Run) -> Result:
        nonlocal done
        result = train(run, folder, until=until, keep=keep)
        done += 1
        minutes = (time.monotonic() - begun) / 60
        left = minutes / done * (len(runs) - done)
        print(f"[{done}/{len(runs)}, {minutes:.0f} min, {left:.0f} left] {describe(result)}", flush=True)
        return result

    with ThreadPoolExecutor(jobs) as pool:
        return list(pool.map(one, runs))


def describe(result: Result) -> str:
    """A result in a line."""
    if not result.validation:
        return f"{result.name}: {result.stopped}"
    step, loss = result.validation[-1]
    reason = f" ({result.stopped or result.left})" if result.stopped or result.left else ""
    return f"{result.name}: validation loss {loss:.4f} at step {step}{reason}"


def add_running_options(parser: argparse.ArgumentParser) -> None:
    """The options that all studies have."""
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, a core each (default 2)")
    parser.add_argument("--folder", type=Path, default=RUNS, help="the study's folder goes here (default runs/studies)")


def read_log(run: Run, text: str) -> Result:
    """What a run printed; of a step that was trained twice, after a resume, the later line counts."""
    result = Result(run.name, list(run.flags), run.steps)
    found = re.findall(r"^(validation|test) loss at iteration (\d+): .*\| lm loss (\S+)", text, re.M)
    validation = {int(step): float(loss) for split, step, loss in found if split == "validation"}
    result.validation = sorted(validation.items())
    result.test = next((float(loss) for split, _, loss in found if split == "test"), None)
    training = re.findall(r"^iteration +(\d+)/\d+ \| lm loss (\S+)", text, re.M)
    result.training = sorted({int(step): float(loss) for step, loss in training}.items())
    for name in ("unigrams", "bigrams"):
        value = re.search(rf"^baselines: .*{name} ([\d.]+)", text, re.M)
        setattr(result, name, None if value is None else float(value[1]))
    stopped = STOPPED.search(text)
    result.stopped = None if stopped is None else stopped[1]
    return result


def read_result(path: Path) -> Result:
    """The result of a complete run, by its result.json."""
    return Result(**json.loads(path.read_text()))


def _known(run: Run, place: Path) -> Result | None:
    path = place / "result.json"
    if not path.is_file():
        return None
    result = read_result(path)
    if (result.flags, result.steps) != (list(run.flags), run.steps):
        raise StudyError(f"{path} is of a run with other flags or steps: move {place} away to train it again")
    return result
