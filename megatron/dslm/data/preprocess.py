"""Documents to megatron-core's indexed datasets: tokenized by worker processes, written in order by one."""

import contextlib
import itertools
import os
import sys
import time
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dslm_patches.errors import UserError
from dslm_patches.files import atomic_outputs
from megatron.dslm.data.indexed_writer import IndexedDatasetWriter
from megatron.dslm.data.jsonl import LineChunk, parse_chunk, read_chunks
from megatron.dslm.data.long_sentences import LONGEST_SENTENCE, cut_between_words
from megatron.dslm.data.parallel import ordered_map
from megatron.dslm.data.sentences import SentenceSplitter, build_sentence_splitter, check_sentence_splitter
from megatron.dslm.data.tokenizer import WORDPIECE_TYPES, Tokenizer, build_tokenizer


@dataclass(frozen=True)
class EncoderOptions:
    """What a worker needs to turn a document into token ids."""

    tokenizer_type: str
    vocab_file: str
    merge_file: str | None = None
    json_keys: tuple[str, ...] = ("text",)
    split_sentences: bool = False
    sentence_splitter: str = "punkt"
    lang: str = "english"
    keep_newlines: bool = False
    append_eod: bool = False
    skip_bad_lines: bool = False


@dataclass
class EncodedKey:
    """The documents of one chunk under one key, those without tokens left out."""

    tokens: bytes
    """All tokens, document after document, in the tokenizer's typecode."""
    lengths: array
    """Tokens of each sequence (sentence, or whole document)."""
    documents: array
    """Sequences of each document."""
    num_empty: int
    """Documents left out because nothing in them became a token."""
    num_unsplit: int
    """Documents of one sentence, before any was cut."""
    num_cut: int
    """Sentences cut because they had more than LONGEST_SENTENCE tokens."""


@dataclass
class EncodedChunk:
    """A chunk's documents by key, and its bad lines, one message each."""

    num_bytes: int
    keys: list[EncodedKey]
    bad: list[str]


@dataclass
class Totals:
    """What was written."""

    num_bytes: int = 0
    num_documents: int = 0
    num_empty: int = 0
    num_unsplit: int = 0
    num_cut: int = 0
    num_bad_lines: int = 0
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
        self._longest_bytes = sys.maxsize
        if options.split_sentences and options.tokenizer_type in WORDPIECE_TYPES:
            self._longest_bytes = LONGEST_SENTENCE * array(self.tokenizer.typecode).itemsize
        self._inside = {index for token, index in self.tokenizer.vocab.items() if token.startswith("##")}
        # text cannot hold it, so it is an end of document, which is no sentence of its own
        self._inside.add(self.tokenizer.eod)

    def encode(self, chunk: LineChunk) -> EncodedChunk:
        """The chunk's documents, encoded.

        Raises:
            BadLineError: a bad line, unless they are skipped.
        """
        bad: list[str] = []
        skipped = bad.append if self.options.skip_bad_lines else None
        documents = list(parse_chunk(chunk, self.options.json_keys, skipped))
        keys = [self._encode_texts([texts[i] for texts in documents]) for i in range(len(self.options.json_keys))]
        return EncodedChunk(chunk.num_bytes, keys, bad)

    def _encode_texts(self, texts: Sequence[str]) -> EncodedKey:
        sentences_by_document = [self.split(text) for text in texts]
        # one call a chunk: a call a sentence would spend more time between Python and Rust than tokenizing
        packed = iter(self.tokenizer.pack_batch([s for sentences in sentences_by_document for s in sentences]))
        end = array(self.tokenizer.typecode, [self.tokenizer.eod] if self.options.append_eod else []).tobytes()
        size = array(self.tokenizer.typecode).itemsize
        tokens: list[bytes] = []
        lengths, documents = array("i"), array("i")
        num_unsplit = num_cut = 0
        for sentences in sentences_by_document:
            sequences = [sequence for sequence in itertools.islice(packed, len(sentences)) if sequence]
            if not sequences:
                continue
            num_unsplit += len(sequences) == 1
            sequences[-1] += end
            if max(map(len, sequences)) > self._longest_bytes:
                num_cut += sum(len(sequence) > self._longest_bytes for sequence in sequences)
                sequences = [piece for sequence in sequences for piece in self._cut(sequence)]
            tokens += sequences
            lengths.extend(len(sequence) // size for sequence in sequences)
            documents.append(len(sequences))
        num_empty = len(texts) - len(documents)
        return EncodedKey(b"".join(tokens), lengths, documents, num_empty, num_unsplit, num_cut)

    def _cut(self, sentence: bytes) -> list[bytes]:
        return cut_between_words(sentence, self.tokenizer.typecode, self._inside)


_encoder: Encoder | None = None


def _start_encoder(options: EncoderOptions) -> None:
    global _encoder
    # the workers are the parallelism; threads of the tokenizer under each would only compete
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    _encoder = Encoder(options)


def _encode(chunk: LineChunk) -> EncodedChunk:
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
    report: Callable[[Totals, list[str]], None] = lambda totals, bad: None,
) -> Totals:
    """Writes an indexed dataset per key, all of them or none.

    Args:
        inputs: files of JSON lines, as `read_chunks` takes them.
        output_prefix: see `output_paths`.
        options: what to do with a document.
        workers: processes that tokenize; the output does not depend on it.
        report: called after each chunk with the totals so far and the chunk's bad lines.

    Raises:
        UserError: a wrong vocabulary or option, a bad line unless they are skipped, or inputs without any text.
    """
    start = time.perf_counter()
    # in this process too, so that a wrong option is reported before any worker starts
    typecode = build_tokenizer(options.tokenizer_type, options.vocab_file, options.merge_file).typecode
    if options.split_sentences:
        check_sentence_splitter(options.sentence_splitter, options.lang)
    paths = [path for key in options.json_keys for path in output_paths(output_prefix, key, options.split_sentences)]
    totals = Totals()
    chunks = ordered_map(_encode, read_chunks(inputs), workers, _start_encoder, (options,))
    with atomic_outputs(*paths) as temporary, contextlib.closing(chunks), contextlib.ExitStack() as stack:
        pairs = zip(temporary[::2], temporary[1::2], strict=True)
        writers = [stack.enter_context(IndexedDatasetWriter(*pair, typecode)) for pair in pairs]
        for chunk in chunks:
            for writer, encoded in zip(writers, chunk.keys, strict=True):
                _write(writer, encoded, totals)
            totals.num_bytes += chunk.num_bytes
            totals.num_bad_lines += len(chunk.bad)
            totals.seconds = time.perf_counter() - start
            report(totals, chunk.bad)
        for key, writer in zip(options.json_keys, writers, strict=True):
            if not writer.num_sequences:
                raise UserError(f"--input: no text under key '{key}' in {len(inputs)} file(s); nothing to write")
            writer.finish()
    totals.seconds = time.perf_counter() - start
    return totals


def _write(writer: IndexedDatasetWriter, encoded: EncodedKey, totals: Totals) -> None:
    writer.add(encoded.tokens, encoded.lengths, encoded.documents)
    totals.num_documents += len(encoded.documents)
    totals.num_empty += encoded.num_empty
    totals.num_unsplit += encoded.num_unsplit
    totals.num_cut += encoded.num_cut
    totals.num_sequences += len(encoded.lengths)
    totals.num_tokens += sum(encoded.lengths)
