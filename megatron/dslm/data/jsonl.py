"""Reading JSON lines: texts one by one, or raw lines in chunks of bounded size for worker processes."""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple


class LineChunk(NamedTuple):
    """Consecutive lines of one file."""

    path: str
    first_line_number: int
    """1 is the file's first line."""
    lines: list[bytes]
    num_bytes: int


def read_chunks(paths: Iterable[Path], chunk_bytes: int = 1 << 18) -> Iterator[LineChunk]:
    """The files' lines in order, a chunk being the lines up to `chunk_bytes` (at least one line)."""
    for path in paths:
        lines: list[bytes] = []
        first_line_number, num_bytes = 1, 0
        with open(path, "rb") as stream:
            for line in stream:
                lines.append(line)
                num_bytes += len(line)
                if num_bytes >= chunk_bytes:
                    yield LineChunk(str(path), first_line_number, lines, num_bytes)
                    first_line_number += len(lines)
                    lines, num_bytes = [], 0
        if lines:
            yield LineChunk(str(path), first_line_number, lines, num_bytes)


def parse_chunk(chunk: LineChunk, keys: Sequence[str]) -> Iterator[list[str]]:
    """The texts under `keys` of every line; blank lines are passed over.

    Raises:
        ValueError: a line that is no JSON object, or has no string under a key; names file and line.
    """
    for line_number, line in enumerate(chunk.lines, chunk.first_line_number):
        if not line.strip():
            continue
        where = f"{chunk.path}:{line_number}"
        try:
            # decoded here, as json.loads would let encoded surrogates pass
            document = json.loads(line.decode("utf-8-sig"))
        except ValueError as error:
            raise ValueError(f"{where}: not valid JSON ({error}); expected one JSON object a line") from error
        if not isinstance(document, dict):
            raise ValueError(f'{where}: a JSON {type(document).__name__}; expected an object such as {{"text": ...}}')
        texts: list[str] = []
        for key in keys:
            text = document.get(key)
            if not isinstance(text, str):
                found = f"a {type(text).__name__}" if key in document else "missing"
                available = ", ".join(document) or "none"
                raise ValueError(f"{where}: key '{key}' is {found}; expected a string (keys there: {available})")
            texts.append(_without_lone_surrogates(text) if b"\\u" in line else text)
        yield texts


def _without_lone_surrogates(text: str) -> str:
    """JSON can escape half of a UTF-16 pair, which no encoder of text takes; it becomes U+FFFD."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def read_texts(paths: Iterable[Path], keys: Sequence[str]) -> Iterator[str]:
    """Every text under `keys` in the files, in order. Raises as `parse_chunk`."""
    for chunk in read_chunks(paths):
        for texts in parse_chunk(chunk, keys):
            yield from texts
