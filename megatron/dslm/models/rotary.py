"""RoPE's base for models whose constructor in megatron-core takes none."""

from typing import Any

from megatron.core.models.common.embeddings import RotaryEmbedding


def set_rotary_base(model: Any, rotary_percent: float, rotary_base: int) -> None:
    """Gives a BertModel, which is built with a base of 10,000, another one; nothing to a model without RoPE."""
    if model.position_embedding_type == "rope":
        model.rotary_pos_emb = RotaryEmbedding(
            kv_channels=model.config.kv_channels,
            rotary_percent=rotary_percent,
            rotary_interleaved=model.config.rotary_interleaved,
            rotary_base=rotary_base,
            use_cpu_initialization=model.config.use_cpu_initialization,
        )
