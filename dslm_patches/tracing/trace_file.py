"""`trace.jsonl`: a header that says what was measured and what was predicted, then one line a traced step."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dslm_patches.errors import UserError
from dslm_patches.files import write_aside
from dslm_patches.tracing.record import Array, TraceRecord

NAME = "trace.jsonl"
_FORMAT = 1


@dataclass(frozen=True)
class Prediction:
    """What the theory says of every layer's output, arrays [num_layers], with relative half-widths of its bands.

    Attributes:
        variance, correlation: of the hidden states.
        gradient_variance: over that at the last layer's output.
        gradient_correlation: of the gradient.
        variance_band, gradient_band: relative; correlation_band: absolute.
    """

    variance: Array
    correlation: Array
    gradient_variance: Array
    gradient_correlation: Array
    variance_band: float
    gradient_band: float
    correlation_band: float


@dataclass
class TraceHeader:
    """What a trace is of.

    Attributes:
        title: the model in a line.
        num_layers: layers of the whole model.
        sites: as given to the tracer.
        prediction: of the model at initialisation, if it was asked for.
    """

    title: str
    num_layers: int
    sites: list[str]
    prediction: Prediction | None = None

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        prediction = None
        if self.prediction is not None:
            prediction = {n: v.tolist() if isinstance(v, Array) else v for n, v in asdict(self.prediction).items()}
        return {"trace": _FORMAT, **asdict(self), "prediction": prediction}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> TraceHeader:
        """The inverse of `as_json`.

        Raises:
            UserError: anything else than what `as_json` gives.
        """
        try:
            if content["trace"] != _FORMAT:
                raise UserError(f"a trace of format {content['trace']}, not {_FORMAT}")
            prediction = content["prediction"]
            if prediction is not None:
                prediction = Prediction(**{name: _value(value) for name, value in prediction.items()})
            return cls(str(content["title"]), int(content["num_layers"]), list(content["sites"]), prediction)
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(f"not the header of a trace ({type(error).__name__}: {error})") from None


class TraceWriter:
    """Appends traced steps to a folder's trace.jsonl, each line complete on the disk when `write` returns.

    Args:
        folder: made if it is not there.
        header: of a new file; a run that goes on keeps the old one.
        after: iteration the run goes on from. Lines beyond it, left by a run that was cut short after its last
            checkpoint, are dropped, and at 0 the file starts anew.
    """

    def __init__(self, folder: str | Path, header: TraceHeader, after: int = 0) -> None:
        self._path = Path(folder) / NAME
        self._path.parent.mkdir(parents=True, exist_ok=True)
        kept: list[str] = []
        if after and self._path.is_file():
            lines = self._path.read_text().splitlines()
            kept = lines[:1] + [line for line in lines[1:] if _iteration(line, after + 1) <= after]
        write_aside(self._path, "".join(line + "\n" for line in kept or [json.dumps(header.as_json())]))

    def write(self, record: TraceRecord) -> None:
        """One step."""
        with self._path.open("a") as file:
            file.write(json.dumps(record.as_json()) + "\n")


def read_header(run: str | Path) -> TraceHeader:
    """The header of a run's trace; see `read_records` for the arguments and errors."""
    path = trace_path(run)
    with path.open() as file:
        return TraceHeader.from_json(_parsed(file.readline(), path, 1))


def read_records(run: str | Path) -> Iterator[TraceRecord]:
    """The traced steps of a run, in order. A last line that a killed run left unfinished is passed over.

    Args:
        run: the folder of trace.jsonl, or the file.

    Raises:
        UserError: no trace, or a line that is none; the file and line are named.
    """
    path = trace_path(run)
    with path.open() as file:
        file.readline()
        for number, line in enumerate(file, start=2):
            if line.endswith("\n"):
                content = _parsed(line, path, number)
                try:
                    yield TraceRecord.from_json(content)
                except ValueError as error:
                    raise UserError(f"{path}, line {number}: {error}") from None


def trace_path(run: str | Path) -> Path:
    """The trace file of a run.

    Raises:
        UserError: there is none, or it is empty.
    """
    path = Path(run)
    path = path / NAME if path.is_dir() else path
    if not path.is_file():
        raise UserError(f"{path} does not exist: {run} holds no trace (train with --trace-interval and --trace-dir)")
    if path.stat().st_size == 0:
        raise UserError(f"{path} is empty")
    return path


def _value(value: Any) -> Any:
    return np.array(value, dtype=np.float64) if isinstance(value, list) else float(value)


def _parsed(line: str, path: Path, number: int) -> dict[str, Any]:
    try:
        content = json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}, line {number}: {error}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}, line {number}: not a trace")
    return content


def _iteration(line: str, otherwise: int) -> int:
    try:
        return int(json.loads(line)["iteration"])
    except (ValueError, KeyError, TypeError):
        return otherwise
