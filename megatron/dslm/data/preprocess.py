"""Documents to megatron-core's indexed datasets: tokenized by worker processes, written in order by one."""

import contextlib
import itertools
import os
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy

from megatron.dslm.data.command_line import atomic_outputs
from megatron.dslm.data.jsonl import LineChunk, parse_chunk, read_chunks
from megatron.dslm.data.parallel import ordered_map
from megatron.dslm.data.sentences import SentenceSplitter, build_sentence_splitter
from megatron.dslm.data.tokenizer import Tokenizer, build_tokenizer

if TYPE_CHECKING:
    from megatron.dslm.data.compact_builder import CompactIndexedDatasetBuilder


@dataclass(frozen=True)
class EncoderOptions:
    """What a worker needs to turn a document into token ids."""

    tokenizer_type: str
    vocab_file: str
    merge_file: str | None = None
    json_keys: tuple[str, ...] = ("text",)
    split_sentences: bool = False
    sentence_splitter: str = "nltk"
    lang: str = "english"
    keep_newlines: bool = False
    append_eod: bool = False


@dataclass
class EncodedKey:
    """The documents of one chunk under one key, those without tokens left out."""

    tokens: numpy.ndarray
    """All tokens, document after document."""
    sequence_lengths: list[list[int]]
    """Tokens of each sequence (sentence, or whole document), by document."""
    num_empty: int
    """Documents left out because nothing in them became a token."""


@dataclass
class Totals:
    """What was written."""

    num_bytes: int = 0
    num_documents: int = 0
    num_empty: int = 0
    num_sequences: int = 0
    num_tokens: int = 0
    seconds: float = 0.0


class Encoder:
    """Tokenizes chunks of JSON lines."""

    def __init__(self, options: EncoderOptions) -> None:
        self.options = options
        self.tokenizer: Tokenizer = build_tokenizer(options.tokenizer_type, options.vocab_file, options.merge_file)
        self.split: SentenceSplitter = lambda document: [document]
        if options.split_sentences:
            self.split = build_sentence_splitter(options.sentence_splitter, options.lang, options.keep_newlines)

    def encode(self, chunk: LineChunk) -> tuple[int, dict[str, EncodedKey]]:
        """The chunk's number of bytes, and its encoded documents by key."""
        documents = list(parse_chunk(chunk, self.options.json_keys))
        encoded = {
            key: self._encode_texts([texts[i] for texts in documents]) for i, key in enumerate(self.options.json_keys)
        }
        return chunk.num_bytes, encoded

    def _encode_texts(self, texts: Sequence[str]) -> EncodedKey:
        sentences_by_document = [self.split(text) for text in texts]
        # one call a chunk: a call a sentence would spend more time between Python and Rust than tokenizing
        ids = iter(self.tokenizer.tokenize_batch([s for sentences in sentences_by_document for s in sentences]))
        tokens: list[int] = []
        sequence_lengths: list[list[int]] = []
        for sentences in sentences_by_document:
            sequences = [sequence for sequence in (next(ids) for _ in sentences) if sequence]
            if not sequences:
                continue
            if self.options.append_eod:
                sequences[-1].append(self.tokenizer.eod)
            for sequence in sequences:
                tokens.extend(sequence)
            sequence_lengths.append([len(sequence) for sequence in sequences])
        return EncodedKey(numpy.array(tokens, dtype=numpy.int32), sequence_lengths, len(texts) - len(sequence_lengths))


_encoder: Encoder | None = None


def _start_encoder(options: EncoderOptions) -> None:
    global _encoder
    # the workers are the parallelism; threads of the tokenizer under each would only compete
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    _encoder = Encoder(options)


def _encode(chunk: LineChunk) -> tuple[int, dict[str, EncodedKey]]:
    assert _encoder is not None
    return _encoder.encode(chunk)


def output_paths(output_prefix: str, key: str, split_sentences: bool) -> tuple[Path, Path]:
    """The .bin and .idx file of a key, named as Megatron-LM names them."""
    level = "sentence" if split_sentences else "document"
    return Path(f"{output_prefix}_{key}_{level}.bin"), Path(f"{output_prefix}_{key}_{level}.idx")


def preprocess(
    inputs: Sequence[Path],
    output_prefix: str,
    options: EncoderOptions,
    workers: int,
    report: Callable[[Totals], None] = lambda totals: None,
) -> Totals:
    """Writes an indexed dataset per key, all of them or none.

    Args:
        inputs: files of JSON lines.
        output_prefix: see `output_paths`.
        options: what to do with a document.
        workers: processes that tokenize; the output does not depend on it.
        report: called with the totals so far after each chunk.

    Raises:
        ValueError: a wrong vocabulary, option or input line, or inputs without any text.
    """
    start = time.perf_counter()
    # in this process too, so that a wrong option is reported before any worker starts
    vocab_size = Encoder(options).tokenizer.vocab_size
    paths = [path for key in options.json_keys for path in output_paths(output_prefix, key, options.split_sentences)]
    totals = Totals()
    chunks = ordered_map(_encode, read_chunks(inputs), workers, _start_encoder, (options,))
    with atomic_outputs(*paths) as temporary, contextlib.closing(chunks):
        first = list(itertools.islice(chunks, 1))
        # after the first chunk: importing megatron-core takes seconds, in which the workers have begun
        builders = _make_builders(temporary[::2], vocab_size)
        for num_bytes, encoded in itertools.chain(first, chunks):
            totals.num_bytes += num_bytes
            for builder, encoded_key in zip(builders, encoded.values(), strict=True):
                _write(builder, encoded_key, totals)
            totals.seconds = time.perf_counter() - start
            report(totals)
        for key, builder, index_path in zip(options.json_keys, builders, temporary[1::2], strict=True):
            if not builder.sequence_lengths:
                raise ValueError(f"--input: no text under key '{key}' in {len(inputs)} file(s); nothing to write")
            builder.finalize(str(index_path))
    totals.seconds = time.perf_counter() - start
    return totals


def _write(builder: "CompactIndexedDatasetBuilder", encoded: EncodedKey, totals: Totals) -> None:
    offset = 0
    for lengths in encoded.sequence_lengths:
        num_tokens = sum(lengths)
        builder.add_document(encoded.tokens[offset : offset + num_tokens], lengths)
        offset += num_tokens
        totals.num_sequences += len(lengths)
    totals.num_documents += len(encoded.sequence_lengths)
    totals.num_empty += encoded.num_empty
    totals.num_tokens += offset


def _make_builders(bin_paths: Sequence[Path], vocab_size: int) -> list["CompactIndexedDatasetBuilder"]:
    with warnings.catch_warnings():
        # megatron-core tells at import which GPU libraries it does not find; none is used here
        warnings.simplefilter("ignore")
        from megatron.dslm.data.compact_builder import CompactIndexedDatasetBuilder
    return [CompactIndexedDatasetBuilder(str(path), vocab_size) for path in bin_paths]
