"""The model card of an exported model."""

from collections.abc import Mapping

from .configuration_dslm import DslmConfig

_TASKS = {
    "ForPreTraining": "AutoModelForPreTraining",
    "ForMaskedLM": "AutoModelForMaskedLM",
    "ForSequenceClassification": "AutoModelForSequenceClassification",
    "ForMultipleChoice": "AutoModelForMultipleChoice",
    "ForCausalLM": "AutoModelForCausalLM",
}

_CARD = """---
library_name: transformers
tags:
- dslm
- {model_type}
---

# {title}

{layers} layers x {hidden}, {heads} attention heads{groups}, FFN {ffn} {activation}, {positions},
{norm} ({placement}-LN), vocabulary {vocabulary}.

Depth scheme: **{scheme}**{about}. Residual: x' = {skip} x + {branch} f(x); head scale {head_scale:.6g}.
The whole prescription, weight by weight, is in `config.json`.

## Use

```python
from transformers import {auto}, AutoTokenizer

model = {auto}.from_pretrained("PATH", trust_remote_code=True)
tokenizer = AutoTokenizer.from_pretrained("PATH", trust_remote_code=True)
```

The code of the model is in this folder. Where the package `dslm-megatron` is installed, `import dslm_patches.hf` takes
its place and `trust_remote_code` is not needed.

## Training

{facts}

## Licence

Not stated: whoever publishes this model says under which licence.
"""
_DSLM = " ([DeepScaleLM, arXiv 2403.09635](https://arxiv.org/abs/2403.09635))"


def model_card(config: DslmConfig, model_class: str, facts: Mapping[str, str]) -> str:
    """The README.md of a model: architecture, scheme, how to load it, what it was trained for."""
    prescription = config.prescription
    assert prescription is not None
    heads, groups = config.num_attention_heads, config.num_key_value_heads
    learned = config.position_embedding_type == "learned_absolute"
    kind = "GPT" if config.causal else "BERT"
    return _CARD.format(
        model_type=config.model_type,
        title=f"{kind}, {config.num_hidden_layers} layers x {config.hidden_size}, {config.depth_scheme}",
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        heads=heads,
        groups="" if groups == heads else f" in {groups} groups",
        ffn=config.intermediate_size,
        activation=config.hidden_act,
        positions=f"{config.max_position_embeddings} learned positions" if learned else "RoPE",
        norm=config.normalization,
        placement=config.norm_placement,
        vocabulary=_vocabulary(config),
        scheme=config.depth_scheme,
        about=_DSLM if config.depth_scheme == "dslm" else "",
        skip=_span(prescription["skip_scale"]),
        branch=_span(prescription["branch_scale"]),
        head_scale=config.head_scale,
        auto=next((auto for name, auto in _TASKS.items() if model_class.endswith(name)), "AutoModel"),
        facts="\n".join(f"- {name}: {value}" for name, value in facts.items()) or "Not recorded.",
    )


def _vocabulary(config: DslmConfig) -> str:
    if config.tokenizer_vocab_size in (None, config.vocab_size):
        return f"{config.vocab_size:,}"
    return f"{config.tokenizer_vocab_size:,} padded to {config.vocab_size:,}"


def _span(value: float | list[float]) -> str:
    return f"{value[0]:.6g} ... {value[-1]:.6g}" if isinstance(value, list) else f"{value:.6g}"
