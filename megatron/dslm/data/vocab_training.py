"""Training WordPiece and byte-level BPE vocabularies on text, the same file from the same text every time."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from dslm_patches.errors import UserError
from megatron.dslm.data.tokenizer import END_OF_TEXT, wordpiece_normalizer

BERT_SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
# As BERT's: rarer characters become [UNK] instead of taking two entries each.
MAX_CHARACTERS = 1000
MIN_FREQUENCY = 2

Texts = Callable[[], Iterator[str]]
"""Starts reading the training texts again from the first."""


def train_wordpiece(texts: Texts, vocab_size: int, lowercase: bool, vocab_path: Path) -> int:
    """Writes a BERT vocab.txt; returns its size, which a small corpus keeps below `vocab_size`."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    normalizer = wordpiece_normalizer(lowercase)
    # The trainer numbers the "##x" pieces in the order of a hash map, and breaks ties by number: another
    # vocabulary each time. Given as special tokens, they have their numbers before it starts.
    alphabet = _alphabet(normalizer.normalize_str(text) for text in texts())
    fixed = [*BERT_SPECIAL_TOKENS, *alphabet, *(f"##{character}" for character in alphabet)]
    if vocab_size <= len(fixed):
        raise UserError(
            f"--vocab-size {vocab_size}: expected more than {len(fixed)}, which the special tokens and "
            f"{len(alphabet)} characters need"
        )
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        min_frequency=MIN_FREQUENCY,
        special_tokens=fixed,
        limit_alphabet=0,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts(), trainer)
    vocab = tokenizer.get_vocab()
    vocab_path.write_text("".join(f"{token}\n" for token in sorted(vocab, key=vocab.__getitem__)), encoding="utf-8")
    return len(vocab)


def train_bpe(texts: Texts, vocab_size: int, vocab_path: Path, merges_path: Path) -> int:
    """Writes GPT-2's encoder.json and vocab.bpe, <|endoftext|> last as there; returns the size."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    alphabet = pre_tokenizers.ByteLevel.alphabet()
    if vocab_size <= len(alphabet) + 1:
        raise UserError(f"--vocab-size {vocab_size}: expected more than 257, which the bytes and {END_OF_TEXT} need")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 1,
        min_frequency=MIN_FREQUENCY,
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts(), trainer)
    model = json.loads(tokenizer.to_str())["model"]
    vocab = dict(sorted(model["vocab"].items(), key=lambda item: item[1]))
    vocab[END_OF_TEXT] = len(vocab)
    vocab_path.write_text(json.dumps(vocab, ensure_ascii=False) + "\n", encoding="utf-8")
    merges = "".join(f"{left} {right}\n" for left, right in model["merges"])
    merges_path.write_text("#version: 0.2\n" + merges, encoding="utf-8")
    return len(vocab)


def _alphabet(texts: Iterator[str]) -> list[str]:
    """The MAX_CHARACTERS most frequent characters, sorted."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text)
    frequent = sorted((c for c in counts if not c.isspace()), key=lambda c: (-counts[c], c))
    return sorted(frequent[:MAX_CHARACTERS])
