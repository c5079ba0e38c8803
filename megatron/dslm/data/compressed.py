"""Input files, plain or compressed; a damaged or cut one is an error that names it, never a shorter file."""

import contextlib
import gzip
import io
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from dslm_patches.errors import UserError

STDIN = Path("-")
COMPRESSED = (".gz", ".zst")


@contextlib.contextmanager
def open_input(path: Path) -> Iterator[BinaryIO]:
    """The bytes of a plain, .gz or .zst file; of standard input for "-".

    Raises:
        UserError: a compressed file is damaged or cut short.
    """
    with contextlib.ExitStack() as files:
        stream: Any = sys.stdin.buffer
        if path != STDIN:
            stream = files.enter_context(open(path, "rb"))
        if path.suffix == ".gz":
            stream = gzip.GzipFile(fileobj=stream)
        elif path.suffix == ".zst":
            stream = io.BufferedReader(_Zstandard(stream), 1 << 17)
        try:
            yield stream
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise UserError(f"--input {path}: damaged ({error})") from error


class _Zstandard(io.RawIOBase):
    """Decompresses frame after frame; zstandard's own reader takes a cut file for a whole one."""

    def __init__(self, compressed: BinaryIO) -> None:
        import zstandard

        self._compressed, self._error = compressed, zstandard.ZstdError
        self._new = zstandard.ZstdDecompressor().decompressobj
        self._frame: Any = None
        self._waiting = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._waiting:
            chunk = self._frame.unused_data if self._frame is not None and self._frame.eof else b""
            chunk = chunk or self._compressed.read(1 << 16)
            if self._frame is None or self._frame.eof:
                if not chunk:
                    return 0
                self._frame = self._new()
            elif not chunk:
                raise EOFError("the file is cut short")
            try:
                self._waiting = self._frame.decompress(chunk)
            except self._error as error:
                raise EOFError(str(error)) from error
        count = min(len(buffer), len(self._waiting))
        buffer[:count], self._waiting = self._waiting[:count], self._waiting[count:]
        return count
