"""megatron-core's indexed dataset, written in memory that does not grow with it, and without importing torch."""

import contextlib
import itertools
import shutil
import struct
import tempfile
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import IO

import numpy

_HEADER = b"MMIDIDX\x00\x00"
_VERSION = 1
_CODES = {"i": 4, "H": 8}
"""Typecode of `array` -> megatron-core's DType."""
_BLOCK = 1 << 16


class IndexedDatasetWriter:
    """Writes what megatron-core's IndexedDatasetBuilder writes, byte for byte.

    That one keeps Python lists, 76 bytes a sentence in the end; here lengths wait on disk beside the output.

    Args:
        bin_path, idx_path: the files to write.
        typecode: of the tokens, "H" (uint16) or "i" (int32), as `Tokenizer.typecode`.
    """

    def __init__(self, bin_path: Path, idx_path: Path, typecode: str) -> None:
        self._idx_path, self._code = idx_path, _CODES[typecode]
        self._item_size = numpy.dtype(typecode).itemsize
        self._files = files = contextlib.ExitStack()
        self._tokens = files.enter_context(open(bin_path, "wb"))  # noqa: SIM115
        self._lengths: IO[bytes] = files.enter_context(tempfile.TemporaryFile(dir=bin_path.parent))  # noqa: SIM115
        self._documents: IO[bytes] = files.enter_context(tempfile.TemporaryFile(dir=bin_path.parent))  # noqa: SIM115
        self.num_sequences = 0
        self.num_documents = 0

    def __enter__(self) -> "IndexedDatasetWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._files.close()

    def add(self, tokens: bytes, lengths: Iterable[int], documents: Iterable[int]) -> None:
        """Appends documents.

        Args:
            tokens: of all their sequences.
            lengths: tokens of each sequence.
            documents: sequences of each document.
        """
        ends = numpy.fromiter(itertools.accumulate(documents), numpy.int64) + self.num_sequences
        each = numpy.fromiter(lengths, numpy.int32)
        self._tokens.write(tokens)
        self._lengths.write(each.tobytes())
        self._documents.write(ends.tobytes())
        self.num_sequences += len(each)
        self.num_documents += len(ends)

    def finish(self) -> None:
        """Writes the index; the data is on the disk then."""
        self._tokens.close()
        with open(self._idx_path, "wb") as index:
            index.write(_HEADER + struct.pack("<QB", _VERSION, self._code))
            index.write(struct.pack("<QQ", self.num_sequences, self.num_documents + 1))
            self._lengths.seek(0)
            shutil.copyfileobj(self._lengths, index)
            self._lengths.seek(0)
            offset = 0
            while len(block := numpy.frombuffer(self._lengths.read(4 * _BLOCK), numpy.int32)):
                ends = offset + numpy.cumsum(block, dtype=numpy.int64)
                index.write(((ends - block) * self._item_size).tobytes())
                offset = int(ends[-1])
            index.write(struct.pack("<q", 0))
            self._documents.seek(0)
            shutil.copyfileobj(self._documents, index)
