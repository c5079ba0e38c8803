"""The architecture, its dropout, and how depth is mastered."""

from dataclasses import dataclass

from dslm_patches.schemes import scheme_names
from dslm_patches.theory.ffn import FFN_ACTIVATIONS
from megatron.dslm.config.setting import POSITIVE, PROBABILITY, SHARE, OnResume, setting

NEVER, BY_NAME, SPELLING = OnResume.NEVER, OnResume.BY_NAME, OnResume.SPELLING


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """model"""

    num_layers: int = setting(NEVER, bounds=POSITIVE)
    """transformer layers"""
    hidden_size: int = setting(NEVER, bounds=POSITIVE)
    """width of the hidden states"""
    num_attention_heads: int = setting(NEVER, bounds=POSITIVE)
    """attention heads of a layer"""
    ffn_hidden_size: int = setting(NEVER, None, bounds=POSITIVE)
    """FFN width; default 4 x hidden size, 8/3 x when gated"""
    kv_channels: int = setting(NEVER, None, bounds=POSITIVE)
    """head width; default hidden size / heads"""
    group_query_attention: bool = setting(SPELLING, False)
    """share keys and values between heads"""
    num_query_groups: int = setting(NEVER, None, bounds=POSITIVE)
    """key-value heads of --group-query-attention; default 1"""
    seq_length: int = setting(NEVER, bounds=POSITIVE)
    """tokens a sequence"""
    max_position_embeddings: int = setting(NEVER, None, bounds=POSITIVE)
    """longest sequence; default --seq-length"""
    position_embedding_type: str = setting(NEVER, "learned_absolute", choices=("learned_absolute", "rope"))
    """how tokens know their place"""
    rotary_percent: float = setting(NEVER, 1.0, bounds=SHARE)
    """share of the head that RoPE turns"""
    rotary_base: int = setting(NEVER, 10000, bounds=POSITIVE)
    """base period of RoPE"""
    activation: str = setting(NEVER, None, choices=tuple(FFN_ACTIVATIONS))
    """FFN activation; default gelu"""
    swiglu: bool = setting(SPELLING, False)
    """Megatron-LM's spelling of --activation swiglu"""
    normalization: str = setting(NEVER, "LayerNorm", choices=("LayerNorm", "RMSNorm"))
    """kind of every norm"""
    norm_epsilon: float = setting(NEVER, 1e-5, bounds=POSITIVE)
    """added to a norm's variance"""
    disable_bias_linear: bool = setting(NEVER, False)
    """linears without biases"""
    untie_embeddings_and_output_weights: bool = setting(NEVER, False)
    """an output matrix of its own"""
    make_vocab_size_divisible_by: int = setting(NEVER, 128, bounds=POSITIVE)
    """the vocabulary is padded to a multiple of this"""
    attention_dropout: float = setting(BY_NAME, 0.1, bounds=PROBABILITY)
    """of attention weights"""
    hidden_dropout: float = setting(BY_NAME, 0.1, bounds=PROBABILITY)
    """of embeddings and of each branch's output"""


@dataclass(frozen=True, kw_only=True)
class DepthSchemeConfig:
    """depth scheme: how weights are drawn, residuals scaled and LayerNorms placed (arXiv 2403.09635)"""

    dslm: bool = setting(SPELLING, False)
    """DeepScaleLM, the whole method: --depth-scheme dslm"""
    depth_scheme: str = setting(NEVER, None, choices=tuple(scheme_names()))
    """default megatron"""
    norm_placement: str = setting(NEVER, None, choices=("pre", "post"))
    """LayerNorm before each branch, or on the skip; default pre"""
    apply_residual_connection_post_layernorm: bool = setting(SPELLING, False)
    """Megatron-LM's spelling of --norm-placement post"""
    dslm_k: float = setting(NEVER, None)
    """beta^2 = k / N^alpha, lambda^2 = 1 - beta^2; default 2"""
    dslm_alpha: float = setting(NEVER, None)
    """default 1"""
    dslm_lambda_sq: float = setting(NEVER, None, aliases=("--moment-control-lambda-sq",))
    """lambda^2 outright"""
    dslm_beta_sq: float = setting(NEVER, None, aliases=("--moment-control-beta-sq",))
    """beta^2 outright"""
    dslm_input_correlation: float = setting(NEVER, None)
    """token correlation of the embeddings before dropout; default by Zipf's law over the vocabulary"""
    init_method_std: float = setting(NEVER, None, bounds=POSITIVE)
    """std of --depth-scheme megatron; default 0.02"""
    moment_control_sigma: bool = setting(SPELLING, False)
    """the original project's: DeepScaleLM's init"""
    moment_control_lambda_beta: bool = setting(SPELLING, False)
    """the original project's: its residual scaling"""
    xavier_flag_sigma: bool = setting(SPELLING, False)
    """the original project's: --depth-scheme xavier"""
