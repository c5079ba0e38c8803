"""The shape of a transformer: all that the theory, and a depth scheme on it, may know about a model."""

from dataclasses import dataclass

from dslm_patches.theory import embeddings


@dataclass(frozen=True)
class ModelShape:
    """All that a scheme may know about a model. Lengths in tokens, sizes in features.

    Attributes:
        attention_size: heads times head width, the width of the concatenated heads.
        activation: "relu", "gelu" or "silu"; `gated` makes it GEGLU or SwiGLU.
        embedding_tables: tables summed at the input (word, position, token type): 1 to 3.
        tied_output: the logits use the word embedding.
        input_correlation: token correlation of the summed embeddings before dropout.
        context_correlation: token correlation of the encoder's output, where layers have cross-attention.
    """

    num_layers: int
    hidden_size: int
    ffn_hidden_size: int
    attention_size: int
    head_size: int
    seq_length: int
    causal: bool
    activation: str
    gated: bool
    hidden_dropout: float
    attention_dropout: float
    embedding_tables: int
    tied_output: bool
    input_correlation: float
    context_correlation: float | None = None

    @property
    def num_heads(self) -> int:
        """Query heads."""
        return self.attention_size // self.head_size

    @property
    def ffn_ratio(self) -> float:
        """FFN width over hidden size."""
        return self.ffn_hidden_size / self.hidden_size

    @classmethod
    def of(
        cls,
        *,
        num_layers: int,
        hidden_size: int,
        ffn_hidden_size: int,
        num_heads: int,
        head_size: int,
        seq_length: int,
        causal: bool,
        activation: tuple[str, bool],
        hidden_dropout: float,
        attention_dropout: float,
        learned_positions: bool,
        segments: bool,
        tied_output: bool,
        vocab_size: int,
        match_probability: float | None = None,
        input_correlation: float | None = None,
    ) -> "ModelShape":
        """The shape of a BERT or GPT from what flags, a built model and a configuration alike say of it.

        Args:
            activation: base function and gatedness, as in `ffn.FFN_ACTIVATIONS`.
            learned_positions: a position table is added to the word table.
            segments: a token-type table is added.
            vocab_size: rows of the word table, padding included, for Zipf's law.
            match_probability: sum of squared token frequencies of the real data, in place of Zipf's law.
            input_correlation: as the attribute; by default it follows from the three above.

        Raises:
            ValueError: vocab_size below 1.
        """
        if input_correlation is None:
            input_correlation = embeddings.input_correlation(
                vocab_size, learned_positions=learned_positions, segments=segments, match_probability=match_probability
            )
        base, gated = activation
        return cls(
            num_layers=num_layers,
            hidden_size=hidden_size,
            ffn_hidden_size=ffn_hidden_size,
            attention_size=num_heads * head_size,
            head_size=head_size,
            seq_length=seq_length,
            causal=causal,
            activation=base,
            gated=gated,
            hidden_dropout=hidden_dropout,
            attention_dropout=attention_dropout,
            embedding_tables=embeddings.embedding_tables(learned_positions=learned_positions, segments=segments),
            tied_output=tied_output,
            input_correlation=input_correlation,
        )
