"""Tokenizers by Megatron-LM's type names, backed by Hugging Face `tokenizers`.

The objects offer what megatron-core's BERT, T5, GPT and masked datasets ask of `config.tokenizer`. Nothing
here imports torch or megatron-core, so worker processes that only tokenize start fast and stay small.

Text cannot forge special tokens: "[SEP]" or "<|endoftext|>" in a document is tokenized as its characters.
"""

import hashlib
import operator
import re
from array import array
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

from dslm_patches.errors import UserError
from megatron.dslm.data.piece_ids import PieceIds
from megatron.dslm.data.vocab_files import END_OF_TEXT, read_bpe_merges, read_bpe_vocab, read_wordpiece_vocab

WORDPIECE_TYPES = ("BertWordPieceLowerCase", "BertWordPieceCase")
TOKENIZER_TYPES = (*WORDPIECE_TYPES, "GPT2BPETokenizer")

# As in Google's and Megatron-LM's BERT tokenizers; a longer run without spaces or punctuation is one [UNK].
MAX_CHARACTERS_PER_WORD = 200

# Where a text can be cut so that the ids of the pieces, put together, are the ids of the text: for WordPiece
# at every space; for GPT-2, whose tokens carry the space before them, in front of a space that stands alone.
_WORDPIECE_CUTS = re.compile(" ")
_BPE_CUTS = re.compile(r"(?<=\S)(?= \S)")
# The words their pre-tokenizers find in printable ASCII.
_WORDPIECE_WORDS = re.compile(r"[a-zA-Z0-9]+|[^a-zA-Z0-9 ]")
_BPE_WORDS = re.compile(r"'s|'t|'re|'ve|'m|'ll|'d| ?[a-zA-Z]+| ?[0-9]+| ?[^a-zA-Z0-9 ]+")
_TOO_MANY_FOR_16_BITS = 65500  # megatron-core's own bound


class Tokenizer:
    """A tokenizer as megatron-core's datasets use it.

    `cls`, `sep`, `mask`, `pad`, `bos`, `eos`, `eod` are token ids; one that the vocabulary does not have
    raises AttributeError (for GPT-2's missing pad, megatron-core then takes -1). Instances can be pickled.
    """

    def __init__(
        self,
        tokenizer_type: str,
        backend: Any,
        cuts: re.Pattern[str],
        ascii_words: re.Pattern[str],
        for_model: Callable[[str], str],
        vocab: dict[str, int],
        special_ids: dict[str, int],
        content_sha256: str,
        additional_special_tokens_ids: Sequence[int] = (),
    ) -> None:
        self.tokenizer_type = tokenizer_type
        self.vocab = vocab
        """Token to id, in the order of the ids."""
        self.inv_vocab = {index: token for token, index in vocab.items()}
        """Id to token, in the order of the ids."""
        self.additional_special_tokens_ids = list(additional_special_tokens_ids)
        """T5's sentinels, `<extra_id_0>` first."""
        # megatron-core names its index caches by this: the same vocabulary elsewhere on disk finds them again
        self.unique_identifiers = OrderedDict(
            [
                ("class", type(self).__name__),
                ("tokenizer_type", tokenizer_type),
                ("content_sha256", content_sha256),
            ]
        )
        self._backend = backend
        self._cuts = cuts
        self._special_ids = special_ids
        self.typecode = "H" if len(vocab) < _TOO_MANY_FOR_16_BITS else "i"
        """`array`'s, of the integers of `pack_batch`: as megatron-core's indexed dataset has them."""
        self._pieces = PieceIds(backend, self.typecode, ascii_words, for_model)

    @property
    def vocab_size(self) -> int:
        """Number of tokens, special ones included, without padding for tensor parallelism."""
        return len(self.vocab)

    def tokenize(self, text: str) -> list[int]:
        """The ids of `text`, without special tokens."""
        return self.tokenize_batch([text])[0]

    def tokenize_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text, without special tokens."""
        return [array(self.typecode, packed).tolist() for packed in self.pack_batch(texts)]

    def pack_batch(self, texts: Sequence[str]) -> list[bytes]:
        """`tokenize_batch` as machine integers of `typecode`: no Python object for each token."""
        split, ids_of = self._cuts.split, self._pieces.__getitem__
        return [b"".join(map(ids_of, split(text))) for text in texts]

    def detokenize(self, ids: Sequence[int]) -> str:
        """The text of `ids`: exact for GPT-2, with spaces and cases guessed for WordPiece."""
        return self._backend.decode([int(index) for index in ids], skip_special_tokens=False)

    def _special(self, name: str) -> int:
        if name not in self._special_ids:
            raise AttributeError(f"{self.tokenizer_type} has no '{name}' token")
        return self._special_ids[name]

    @property
    def cls(self) -> int:
        """[CLS]"""
        return self._special("cls")

    @property
    def sep(self) -> int:
        """[SEP]"""
        return self._special("sep")

    @property
    def mask(self) -> int:
        """[MASK]"""
        return self._special("mask")

    @property
    def pad(self) -> int:
        """[PAD]"""
        return self._special("pad")

    @property
    def bos(self) -> int:
        """[BOS] with extra ids, otherwise [CLS]; <|endoftext|> for GPT-2."""
        return self._special("bos")

    @property
    def eos(self) -> int:
        """[EOS] with extra ids, otherwise [SEP]; <|endoftext|> for GPT-2."""
        return self._special("eos")

    @property
    def eod(self) -> int:
        """End of a document: [SEP], with extra ids too, so the same data fits; <|endoftext|> for GPT-2."""
        return self._special("eod")


def build_tokenizer(
    tokenizer_type: str, vocab_file: str, merge_file: str | None = None, vocab_extra_ids: int = 0
) -> Tokenizer:
    """The tokenizer of a Megatron-LM type name.

    Args:
        tokenizer_type: one of TOKENIZER_TYPES.
        vocab_file: BERT's vocab.txt for WordPiece, GPT-2's encoder.json for GPT2BPETokenizer.
        merge_file: GPT-2's vocab.bpe; for GPT2BPETokenizer only.
        vocab_extra_ids: T5 sentinels to add behind a WordPiece vocabulary, [BOS] and [EOS], as Megatron-LM.

    Raises:
        UserError: an unknown type or a wrong file; one line that names the flag and what would be right.
    """
    if tokenizer_type not in TOKENIZER_TYPES:
        raise UserError(f"--tokenizer-type {tokenizer_type}: unknown; expected one of {', '.join(TOKENIZER_TYPES)}")
    if tokenizer_type in WORDPIECE_TYPES:
        if merge_file is not None:
            raise UserError(f"--merge-file {merge_file}: {tokenizer_type} has no merges; leave the flag out")
        return _build_wordpiece(tokenizer_type, vocab_file, vocab_extra_ids)
    if merge_file is None:
        raise UserError("--merge-file is missing: GPT2BPETokenizer needs GPT-2's vocab.bpe beside --vocab-file")
    if vocab_extra_ids:
        raise UserError(f"--vocab-extra-ids {vocab_extra_ids}: T5 sentinels need a WordPiece --tokenizer-type")
    return _build_gpt2(vocab_file, merge_file)


def wordpiece_normalizer(lowercase: bool) -> Any:
    """BERT's text normalisation: control characters out, spaces around CJK, in lower case accents out."""
    from tokenizers import normalizers

    return normalizers.BertNormalizer(lowercase=lowercase)


def _build_wordpiece(tokenizer_type: str, vocab_file: str, vocab_extra_ids: int) -> Tokenizer:
    from tokenizers import Tokenizer as Backend
    from tokenizers import decoders, models, pre_tokenizers

    vocab, content = read_wordpiece_vocab(vocab_file)
    if vocab_extra_ids:
        for token in ("[BOS]", "[EOS]", *(f"<extra_id_{i}>" for i in range(vocab_extra_ids))):
            vocab.setdefault(token, len(vocab))
    model = models.WordPiece(vocab, unk_token="[UNK]", max_input_chars_per_word=MAX_CHARACTERS_PER_WORD)
    backend = Backend(model)
    lowercase = tokenizer_type == "BertWordPieceLowerCase"
    backend.normalizer = wordpiece_normalizer(lowercase)
    for_model = operator.methodcaller("lower") if lowercase else str
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(cleanup=True)
    special = {name: vocab[f"[{name.upper()}]"] for name in ("cls", "sep", "mask", "pad")}
    special["eod"] = special["sep"]
    special["bos"] = vocab["[BOS]"] if vocab_extra_ids else special["cls"]
    special["eos"] = vocab["[EOS]"] if vocab_extra_ids else special["sep"]
    sentinels = [vocab[f"<extra_id_{i}>"] for i in range(vocab_extra_ids)]
    sha256 = _sha256(content, str(vocab_extra_ids))
    return Tokenizer(
        tokenizer_type, backend, _WORDPIECE_CUTS, _WORDPIECE_WORDS, for_model, vocab, special, sha256, sentinels
    )


def _build_gpt2(vocab_file: str, merge_file: str) -> Tokenizer:
    from tokenizers import Tokenizer as Backend
    from tokenizers import decoders, models, pre_tokenizers

    vocab, vocab_content = read_bpe_vocab(vocab_file)
    merges, merge_content = read_bpe_merges(merge_file, vocab)
    backend = Backend(models.BPE(vocab, merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    end_of_text = vocab[END_OF_TEXT]
    # no pad: GPT-2 has none, and one that equals eod would mask every end of document out of the loss
    special = {"bos": end_of_text, "eos": end_of_text, "eod": end_of_text}
    sha256 = _sha256(vocab_content, merge_content)
    for_model = operator.methodcaller("replace", " ", "Ġ")  # the byte-level alphabet's space
    return Tokenizer("GPT2BPETokenizer", backend, _BPE_CUTS, _BPE_WORDS, for_model, vocab, special, sha256)


def _sha256(*contents: str) -> str:
    digest = hashlib.sha256()
    for content in contents:
        digest.update(hashlib.sha256(content.encode()).digest())
    return digest.hexdigest()
