"""Configurations of BERT and GPT under a depth scheme, with the scheme's prescription as plain data.

Loaded as remote code too: it stands on transformers alone.
"""

from typing import Any, ClassVar

from transformers import PretrainedConfig

from .prescription_dslm import compute_prescription, of_layer

if not hasattr(PretrainedConfig, "__post_init__"):
    raise ImportError("transformers 5.4 or newer is needed: pip install -U transformers")

_CHOICES = {
    "hidden_act": ("gelu", "relu", "silu", "geglu", "swiglu"),
    "normalization": ("LayerNorm", "RMSNorm"),
    "position_embedding_type": ("learned_absolute", "rope"),
    "norm_placement": ("pre", "post"),
}
_SCHEME_OF = {
    **dict.fromkeys(("dslm_k", "dslm_alpha", "dslm_lambda_sq", "dslm_beta_sq", "dslm_input_correlation"), "dslm"),
    "init_method_std": "megatron",
}
_POSITIVE = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "intermediate_size",
    "max_position_embeddings",
    "seq_length",
    "layer_norm_eps",
    "rotary_percent",
    "rotary_base",
)


class DslmConfig(PretrainedConfig):
    """What `DslmBertConfig` and `DslmGPTConfig` share.

    Args:
        num_key_value_heads: below `num_attention_heads` for grouped-query attention.
        head_dim: width of a head; default hidden_size / num_attention_heads.
        intermediate_size: width of the FFN; default 4 hidden_size.
        hidden_act: "gelu" (exact), "relu", "silu", or gated "geglu", "swiglu".
        normalization: "LayerNorm" or "RMSNorm".
        position_embedding_type: "learned_absolute", or "rope" with `rotary_percent` and `rotary_base`.
        use_bias: biases in the linears of the layers.
        depth_scheme: "megatron", "xavier" or "dslm".
        norm_placement: "pre", or "post": the skip starts at each LayerNorm's output.
        dslm_k, dslm_alpha, dslm_lambda_sq, dslm_beta_sq, dslm_input_correlation: options of "dslm".
        init_method_std: of "megatron"; default 0.02.
        seq_length: tokens a sequence that the scheme reckons with; default max_position_embeddings.
        tokenizer_vocab_size: tokens of the tokenizer, where vocab_size is padded.
        megatron: what a Megatron run records besides, for the way back to it.
        prescription: what the scheme prescribes, computed when it is not given: "head_scale", "skip_scale",
            "branch_scale", and the std of each weight role in "layer_std" and "model_std". A value of the layers is
            one number, or a list with one a layer.

    Raises:
        ValueError: an argument that is wrong, by its name.
    """

    model_roles: ClassVar[tuple[str, ...]] = ("word_embedding", "position_embedding", "output")
    auto_classes: ClassVar[dict[str, str]] = {}
    causal: ClassVar[bool] = True

    vocab_size: int = 50304
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    intermediate_size: int | None = None
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 1024
    type_vocab_size: int = 0
    normalization: str = "LayerNorm"
    layer_norm_eps: float = 1e-5
    position_embedding_type: str = "learned_absolute"
    rotary_percent: float = 1.0
    rotary_base: int = 10000
    use_bias: bool = True
    use_cache: bool = True
    tie_word_embeddings: bool = True
    pad_token_id: int | None = None
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    depth_scheme: str = "dslm"
    norm_placement: str = "pre"
    dslm_k: float | None = None
    dslm_alpha: float | None = None
    dslm_lambda_sq: float | None = None
    dslm_beta_sq: float | None = None
    dslm_input_correlation: float | None = None
    init_method_std: float | None = None
    seq_length: int | None = None
    tokenizer_vocab_size: int | None = None
    megatron: dict[str, Any] | None = None
    prescription: dict[str, Any] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        if not getattr(self, "auto_map", None):
            self.auto_map = dict(self.auto_classes)
        if self.head_dim is None:
            if self.hidden_size % self.num_attention_heads:
                raise ValueError(
                    f"hidden_size {self.hidden_size} must be divisible by num_attention_heads "
                    f"{self.num_attention_heads}, or give head_dim"
                )
            self.head_dim = self.hidden_size // self.num_attention_heads
        self.num_key_value_heads = self.num_key_value_heads or self.num_attention_heads
        self.intermediate_size = self.intermediate_size or 4 * self.hidden_size
        self.seq_length = self.seq_length or self.max_position_embeddings
        self._check_arguments()
        if self.prescription is None:
            self.prescription = compute_prescription(self)

    @property
    def head_scale(self) -> float:
        """Factor on the hidden states just before the output logits."""
        return self._prescribed()["head_scale"]

    def residual_scales(self, layer: int) -> tuple[float, float]:
        """(skip, branch) of layer `layer`, from 0: x' = skip x + branch f(x)."""
        prescription = self._prescribed()
        return of_layer(prescription["skip_scale"], layer), of_layer(prescription["branch_scale"], layer)

    def layer_std(self, role: str, layer: int) -> float:
        """Std of a weight role in layer `layer`, from 0."""
        return of_layer(self._prescribed()["layer_std"][role], layer)

    def model_std(self, role: str) -> float:
        """Std of a weight role outside the layers."""
        return self._prescribed()["model_std"][role]

    def _prescribed(self) -> dict[str, Any]:
        if self.prescription is None:
            raise ValueError(
                "prescription is missing from the configuration, and dslm_patches is not there to compute it"
            )
        for name, key in (("depth_scheme", "scheme"), ("norm_placement",) * 2, ("num_hidden_layers",) * 2):
            if self.prescription[key] != getattr(self, name):
                raise ValueError(
                    f"{name} {getattr(self, name)} is not the prescription's, {self.prescription[key]}: "
                    "make a new configuration without prescription to compute it"
                )
        return self.prescription

    def _check_arguments(self) -> None:
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, not {getattr(self, name)!r}")
        for name in _POSITIVE:
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, not {getattr(self, name)}")
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"{name} must lie in [0, 1), not {getattr(self, name)}")
        if self.num_key_value_heads and self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"num_attention_heads {self.num_attention_heads} must be divisible by num_key_value_heads "
                f"{self.num_key_value_heads}"
            )
        for name, scheme in _SCHEME_OF.items():
            if getattr(self, name) is not None and self.depth_scheme != scheme:
                raise ValueError(f"{name} goes with depth_scheme {scheme!r}, not {self.depth_scheme!r}")


class DslmBertConfig(DslmConfig):
    """BERT: `type_vocab_size` 0 leaves the token-type table out."""

    model_type = "dslm_bert"
    model_roles = (
        "word_embedding",
        "position_embedding",
        "tokentype_embedding",
        "lm_head_transform",
        "output",
        "pooler",
        "binary_head",
    )
    auto_classes = {  # noqa: RUF012
        "AutoConfig": "configuration_dslm.DslmBertConfig",
        "AutoModel": "modeling_dslm_bert.DslmBertModel",
        "AutoModelForPreTraining": "modeling_dslm_bert.DslmBertForPreTraining",
        "AutoModelForMaskedLM": "modeling_dslm_bert.DslmBertForMaskedLM",
        "AutoModelForSequenceClassification": "modeling_dslm_bert.DslmBertForSequenceClassification",
        "AutoModelForMultipleChoice": "modeling_dslm_bert.DslmBertForMultipleChoice",
    }
    causal = False

    vocab_size: int = 30592
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    use_cache: bool = False
    pad_token_id: int | None = 0
    classifier_dropout: float | None = None


class DslmGPTConfig(DslmConfig):
    """GPT: causal attention, no token types."""

    model_type = "dslm_gpt"
    keys_to_ignore_at_inference = ["past_key_values"]  # noqa: RUF012  # as transformers spells it
    auto_classes = {  # noqa: RUF012
        "AutoConfig": "configuration_dslm.DslmGPTConfig",
        "AutoModel": "modeling_dslm_gpt.DslmGPTModel",
        "AutoModelForCausalLM": "modeling_dslm_gpt.DslmGPTForCausalLM",
    }
