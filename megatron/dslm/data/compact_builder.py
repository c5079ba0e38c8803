"""megatron-core's indexed dataset builder, its index small enough for hundreds of millions of sentences."""

from array import array
from collections.abc import Sequence

import numpy
from megatron.core.datasets.indexed_dataset import DType, IndexedDatasetBuilder, _IndexWriter


class CompactIndexedDatasetBuilder(IndexedDatasetBuilder):
    """Writes the same bytes as IndexedDatasetBuilder.

    That one keeps Python lists of ints, 8 to 36 bytes for each sentence, and at the end another of 40; here
    it is 4 bytes and then 8.

    Args:
        bin_path: the .bin file to write.
        vocab_size: chooses the integer type of the tokens.
    """

    def __init__(self, bin_path: str, vocab_size: int) -> None:
        super().__init__(bin_path, dtype=DType.optimal_dtype(vocab_size))
        self.sequence_lengths = array("i")
        self.document_indices = array("q", [0])

    def finalize(self, idx_path: str) -> None:
        """Closes the .bin file and writes the .idx file."""
        self.data_file.close()
        with _CompactIndexWriter(idx_path, self.dtype) as writer:
            writer.write(self.sequence_lengths, self.sequence_modes, self.document_indices)


class _CompactIndexWriter(_IndexWriter):
    def _sequence_pointers(self, sequence_lengths: Sequence[int]) -> numpy.ndarray:
        """Byte offset of each sequence in the .bin file."""
        pointers = numpy.zeros(len(sequence_lengths), dtype=numpy.int64)
        numpy.cumsum(sequence_lengths[:-1], out=pointers[1:])
        pointers *= DType.size(self.dtype)
        return pointers
