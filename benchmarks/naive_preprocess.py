"""A straightforward preprocessing pipeline in the manner of Megatron-LM's tool, for benchmarks/preprocess.py.

A process a core, one document at a time: json, NLTK's Punkt on each line, WordPiece in Python as Google's BERT
published it, megatron-core's IndexedDatasetBuilder.

    python benchmarks/naive_preprocess.py input.jsonl vocab.txt output-prefix workers
"""

import json
import math
import multiprocessing
import sys
import unicodedata
import warnings
from collections.abc import Iterator

from megatron.dslm.data.sentences import build_sentence_splitter


def is_punctuation(character: str) -> bool:
    code = ord(character)
    if 33 <= code <= 47 or 58 <= code <= 64 or 91 <= code <= 96 or 123 <= code <= 126:
        return True
    return unicodedata.category(character).startswith("P")


def is_cjk(code: int) -> bool:
    ranges = ((0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F), (0x2B740, 0x2B81F))
    return any(low <= code <= high for low, high in (*ranges, (0x2B820, 0x2CEAF), (0xF900, 0xFAFF), (0x2F800, 0x2FA1F)))


def clean(text: str) -> str:
    output = []
    for character in text:
        code = ord(character)
        if character in "\t\n\r" or unicodedata.category(character) == "Zs":
            output.append(" ")
        elif code in (0, 0xFFFD) or unicodedata.category(character).startswith("C"):
            continue
        elif is_cjk(code):
            output.append(f" {character} ")
        else:
            output.append(character)
    return "".join(output)


def words(text: str) -> Iterator[str]:
    for token in clean(text).split():
        stripped = unicodedata.normalize("NFD", token.lower())
        word = ""
        for character in stripped:
            if unicodedata.category(character) == "Mn":
                continue
            if is_punctuation(character):
                if word:
                    yield word
                yield character
                word = ""
            else:
                word += character
        if word:
            yield word


class WordPiece:
    def __init__(self, vocab_file: str) -> None:
        with open(vocab_file, encoding="utf-8") as lines:
            self.vocab = {line.rstrip("\n"): index for index, line in enumerate(lines)}
        self.tokens = list(self.vocab)
        self.unknown = self.vocab["[UNK]"]

    def tokenize(self, text: str) -> list[int]:
        ids: list[int] = []
        for word in words(text):
            ids += self.pieces(word)
        return ids

    def pieces(self, word: str) -> list[int]:
        if len(word) > 200:
            return [self.unknown]
        ids, start = [], 0
        while start < len(word):
            for end in range(len(word), start, -1):
                piece = word[start:end] if start == 0 else "##" + word[start:end]
                if piece in self.vocab:
                    break
            else:
                return [self.unknown]
            ids.append(self.vocab[piece])
            start = end
        return ids

    def cut(self, sentence: list[int]) -> list[list[int]]:
        """Even pieces of at most 512 tokens, none of which begins inside a word."""
        if len(sentence) <= 512:
            return [sentence]
        end = math.ceil(len(sentence) / math.ceil(len(sentence) / 512))
        while self.tokens[sentence[end]].startswith("##"):
            end -= 1
        return [sentence[:end], *self.cut(sentence[end:])]


class Encoder:
    tokenizer: WordPiece

    def __init__(self, vocab_file: str) -> None:
        self.vocab_file = vocab_file

    def initializer(self) -> None:
        Encoder.tokenizer = WordPiece(self.vocab_file)
        Encoder.splitter = staticmethod(build_sentence_splitter("nltk"))

    def encode(self, line: str) -> list[list[int]]:
        sentences = Encoder.splitter(json.loads(line)["text"])
        tokenized = map(Encoder.tokenizer.tokenize, sentences)
        return [piece for ids in tokenized if ids for piece in Encoder.tokenizer.cut(ids)]


def main() -> None:
    warnings.filterwarnings("ignore")
    import torch
    from megatron.core.datasets.indexed_dataset import DType, IndexedDatasetBuilder

    source, vocab_file, prefix, workers = sys.argv[1:]
    encoder = Encoder(vocab_file)
    dtype = DType.optimal_dtype(len(WordPiece(vocab_file).vocab))
    builder = IndexedDatasetBuilder(f"{prefix}_text_sentence.bin", dtype)
    with open(source, encoding="utf-8") as lines, multiprocessing.Pool(int(workers), encoder.initializer) as pool:
        for document in pool.imap(encoder.encode, lines, 32):
            if document:
                builder.add_document(torch.IntTensor([id for ids in document for id in ids]), list(map(len, document)))
    builder.finalize(f"{prefix}_text_sentence.idx")


if __name__ == "__main__":
    main()
