"""The token ids of pieces of text, remembered: words repeat, and looking them up is many times as fast."""

import re
from array import array
from collections.abc import Callable
from typing import Any

MOST_CHARACTERS = 1 << 21
"""Of remembered pieces: some 60 MB with English words."""


class PieceIds(dict[str, bytes]):
    """Piece to ids, as machine integers; a piece asked for the first time is tokenized.

    ASCII text is cut into the pre-tokenizer's words here and each goes to the model itself, which takes a fifth of the
    time that the whole pipeline of normalizer, pre-tokenizer and offsets takes for a word.

    Args:
        backend: the `tokenizers.Tokenizer`.
        typecode: `array`'s, of an id.
        ascii_words: the pre-tokenizer's words of a text of printable ASCII; text they leave a gap in is not cut.
        for_model: such a word as normalizer and pre-tokenizer hand it to the model.
    """

    def __init__(
        self, backend: Any, typecode: str, ascii_words: re.Pattern[str], for_model: Callable[[str], str]
    ) -> None:
        super().__init__()
        self._arguments = (backend, typecode, ascii_words, for_model)
        self._backend, self._typecode, self._for_model = backend, typecode, for_model
        self._model = backend.model
        self._ascii_words = ascii_words.findall
        self._num_characters = 0

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._arguments

    def __missing__(self, piece: str) -> bytes:
        words = self._ascii_words(piece) if piece.isascii() and piece.isprintable() else []
        if not words or sum(map(len, words)) < len(piece):
            ids = self._pack(self._backend.encode(piece, add_special_tokens=False).ids)
        elif len(words) == 1:
            ids = self._pack([token.id for token in self._model.tokenize(self._for_model(piece))])
        else:
            ids = b"".join([self[word] for word in words])
        self._num_characters += len(piece)
        if self._num_characters > MOST_CHARACTERS:
            self.clear()
            self._num_characters = 0
        self[piece] = ids
        return ids

    def _pack(self, ids: list[int]) -> bytes:
        return array(self._typecode, ids).tobytes()
