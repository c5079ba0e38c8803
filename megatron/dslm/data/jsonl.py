"""Reading JSON lines: texts one by one, or raw lines in chunks of bounded size for worker processes."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

from dslm_patches.errors import UserError
from megatron.dslm.data.compressed import open_input

MOST_LINE_BYTES = 32 << 20
"""A longer line is a broken one: memory is bounded."""


class LineChunk(NamedTuple):
    """Consecutive lines of one file."""

    path: str
    first_line_number: int
    """1 is the file's first line."""
    lines: list[bytes]
    """A line above MOST_LINE_BYTES is cut to one byte more than that."""
    num_bytes: int
    """Of the lines, uncompressed and uncut."""


class BadLineError(UserError):
    """A line that is no document; the message names file and line."""


def read_chunks(paths: Iterable[Path], chunk_bytes: int = 1 << 18) -> Iterator[LineChunk]:
    """The files' lines in order, a chunk being the lines up to `chunk_bytes` (at least one line).

    Args:
        paths: plain, .gz or .zst files; "-" is standard input.

    Raises:
        UserError: a compressed file is damaged.
    """
    for path in paths:
        lines: list[bytes] = []
        first_line_number, num_bytes = 1, 0
        with open_input(path) as stream:
            for line, size in _lines(stream):
                lines.append(line)
                num_bytes += size
                if num_bytes >= chunk_bytes:
                    yield LineChunk(str(path), first_line_number, lines, num_bytes)
                    first_line_number += len(lines)
                    lines, num_bytes = [], 0
        if lines:
            yield LineChunk(str(path), first_line_number, lines, num_bytes)


def _lines(stream: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Lines, and the bytes each of them took."""
    while line := stream.readline(MOST_LINE_BYTES + 1):
        size = len(line)
        if size > MOST_LINE_BYTES and not line.endswith(b"\n"):
            while more := stream.readline(1 << 20):
                size += len(more)
                if more.endswith(b"\n"):
                    break
        yield line, size


def parse_chunk(
    chunk: LineChunk, keys: Sequence[str], skipped: Callable[[str], None] | None = None
) -> Iterator[list[str]]:
    """The texts under `keys` of every line; blank lines are passed over.

    Args:
        skipped: told of each bad line, which is left out then.

    Raises:
        BadLineError: a line that is no JSON object, or has no string under a key.
    """
    for line_number, line in enumerate(chunk.lines, chunk.first_line_number):
        if not line.strip():
            continue
        try:
            yield _parse_line(line, keys)
        except ValueError as error:
            message = f"{chunk.path}:{line_number}: {error}"
            if skipped is None:
                raise BadLineError(message) from error
            skipped(message)


def _parse_line(line: bytes, keys: Sequence[str]) -> list[str]:
    if len(line) > MOST_LINE_BYTES:
        raise UserError(f"longer than {MOST_LINE_BYTES >> 20} MiB; expected one JSON object a line")
    try:
        # decoded here, as json.loads would let encoded surrogates pass
        document = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"not valid JSON ({error}); expected one JSON object a line") from error
    if not isinstance(document, dict):
        raise UserError(f'a JSON {type(document).__name__}; expected an object such as {{"text": ...}}')
    texts: list[str] = []
    for key in keys:
        text = document.get(key)
        if not isinstance(text, str):
            found = f"a {type(text).__name__}" if key in document else "missing"
            available = ", ".join(document) or "none"
            raise UserError(f"key '{key}' is {found}; expected a string (keys there: {available})")
        texts.append(_without_lone_surrogates(text) if b"\\u" in line else text)
    return texts


def _without_lone_surrogates(text: str) -> str:
    """JSON can escape half of a UTF-16 pair, which no encoder of text takes; it becomes U+FFFD."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def read_texts(paths: Iterable[Path], keys: Sequence[str]) -> Iterator[str]:
    """Every text under `keys` in the files, in order. Raises as `parse_chunk`."""
    for chunk in read_chunks(paths):
        for texts in parse_chunk(chunk, keys):
            yield from texts
