"""Traces of real runs in short, by which the limits of the alerts were chosen: what stands in tests/tracing/recorded.

    python tests/tracing/recorded_runs.py RUN NAME

RUN is a folder of `studies.runs`; three digits of each layer's signal at every second traced step are kept.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from dslm_patches.tracing.record import Site, SiteStatistics, TraceRecord
from dslm_patches.tracing.trace_file import read_records
from studies.runs import read_result

FOLDER = Path(__file__).parent / "recorded"
KEPT = {"variance": ("activation", "variance"), "correlation": ("activation", "correlation")}
KEPT["gradient"] = ("gradient", "variance")
EVERY = 2


@dataclass(frozen=True)
class RecordedRun:
    """A run's losses and layers.

    Attributes:
        flags: of the program.
        loss, unigrams: in nats a token, of the validation split at the end.
        warmup: last iteration of the warm-up.
        records: the site "layer" with its variances and its activations' correlation.
    """

    flags: list[str]
    loss: float
    unigrams: float
    records: list[TraceRecord]

    @property
    def warmup(self) -> int:
        return int(self.flags[self.flags.index("--lr-warmup-iters") + 1])


def record(run: Path, name: str) -> None:
    """Writes recorded/NAME.json."""
    result = read_result(run / "result.json")
    records = list(read_records(run / "board"))[::EVERY]
    content: dict[str, object] = {"flags": result.flags, "loss": result.validation[-1][1], "unigrams": result.unigrams}
    content["iterations"] = [one.iteration for one in records]
    for kept, (way, quantity) in KEPT.items():
        values = [getattr(getattr(one.sites["layer"], way), quantity) for one in records]
        content[kept] = [[float(f"{value:.3g}") for value in layers] for layers in values]
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{name}.json").write_text(json.dumps(content) + "\n")


def read_recorded(name: str) -> RecordedRun:
    """A run of the folder."""
    content = json.loads((FOLDER / f"{name}.json").read_text())
    rows = zip(content["iterations"], *(content[kept] for kept in KEPT), strict=True)
    records = [TraceRecord(iteration, {"layer": _site(*map(np.array, signal))}) for iteration, *signal in rows]
    return RecordedRun(content["flags"], content["loss"], content["unigrams"], records)


def _site(variance: np.ndarray, correlation: np.ndarray, gradient: np.ndarray) -> Site:
    layers = len(variance)
    ways = [
        SiteStatistics(
            mean=np.zeros(layers),
            variance=of,
            rms=np.sqrt(of),
            absolute_maximum=np.full(layers, np.nan),
            correlation=alike,
            non_finite=np.zeros(layers),
            count=np.ones(layers),
        )
        for of, alike in ((variance, correlation), (gradient, np.full(layers, np.nan)))
    ]
    return Site(tuple(range(1, layers + 1)), *ways)


if __name__ == "__main__":
    record(Path(sys.argv[1]), sys.argv[2])
