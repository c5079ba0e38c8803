"""Schemes put on one after the other, and on models that are not covered, inside a rank."""

import copy
import importlib
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from megatron.core.fusions.fused_bias_dropout import get_bias_dropout_add
from megatron.core.models.bert import bert_layer_specs
from megatron.core.models.gpt import GPTModel, gpt_layer_specs
from megatron.core.transformer import ModuleSpec, TransformerConfig
from megatron.core.transformer.enums import AttnBackend, AttnMaskType
from megatron.core.transformer.transformer_layer import TransformerLayer

from dslm_patches.errors import UserError
from dslm_patches.mcore import apply_scheme, layer_spec, model_shape, use_cpu_kernels, with_norm_placement
from dslm_patches.schemes import SchemeOptions, build_scheme
from tests.mcore import vanilla_workers

SEED = 5


def after(steps: Sequence[str], model: str, placement: str) -> dict[str, torch.Tensor]:
    """Outputs and gradients of a model after the named steps: schemes, "dslm k=1", "kernels"."""
    net = vanilla_workers.build(model, layer_spec(model, "local", placement))  # type: ignore[arg-type]
    for step in steps:
        if step == "kernels":
            use_cpu_kernels(net)
        else:
            scheme, _, k = step.partition(" k=")
            options = SchemeOptions(norm_placement=placement, k=float(k or 2))  # type: ignore[arg-type]
            apply_scheme(net, scheme, seed=SEED, options=options)
    return vanilla_workers.loss_and_gradients(net, model)


def unequal(orders: Sequence[Sequence[str]], model: str, placement: str) -> tuple[list[Any], int]:
    """(order, tensors) wherever an order of steps is not its last scheme alone; how many of these models differ."""
    found, references = [], {}
    for order in orders:
        alone = (*(step for step in order if step == "kernels"), last_scheme(order))
        if alone not in references:
            references[alone] = after(alone, model, placement)
        ours = after(order, model, placement)
        names = [name for name, value in references[alone].items() if not torch.equal(ours[name], value)]
        found += [(order, names)] if names else []
    return found, len({one["losses"].sum().item() for one in references.values()})


def last_scheme(order: Sequence[str]) -> str:
    """The scheme that an order of steps ends with."""
    return next(step for step in reversed(order) if step != "kernels")


def config(kind: type = TransformerConfig, **settings: Any) -> Any:
    """A small model's."""
    common = {"num_layers": 2, "hidden_size": 32, "num_attention_heads": 4, "attention_backend": AttnBackend.local}
    return kind(**{**common, "use_cpu_initialization": True, **settings})


def gpt(spec: Any = None, of: Any = None, **settings: Any) -> GPTModel:
    """A small GPTModel of any layers."""
    spec = spec or gpt_layer_specs.get_gpt_layer_local_spec()
    return GPTModel(of or config(), spec, vocab_size=64, max_sequence_length=16, **settings)


def t5() -> Any:
    module = importlib.import_module("megatron.core.models.T5")
    specs = importlib.import_module("megatron.core.models.T5.t5_spec")
    return module.T5Model(
        config(),
        config(),
        specs.get_t5_encoder_with_local_block_spec(2),
        specs.get_t5_decoder_with_local_block_spec(2),
        vocab_size=64,
        max_sequence_length=16,
    )


def vision() -> Any:
    module = importlib.import_module("megatron.core.models.vision.clip_vit_model")
    spec = layer_spec("bert", "local", "pre")
    norms = [spec.submodules.input_layernorm] * 2
    return module.CLIPViTModel(config(), spec, *norms, patch_dim=4, img_h=8, img_w=8)


def hybrid() -> Any:
    """A MambaModel without a Mamba layer, which would need its kernels."""
    block = importlib.import_module("megatron.core.ssm.mamba_block")
    local = gpt_layer_specs.get_gpt_layer_local_spec()
    stack = ModuleSpec(block.MambaStack, submodules=block.MambaStackSubmodules(attention_layer=local, mlp_layer=local))
    model = importlib.import_module("megatron.core.models.mamba").MambaModel
    # Without the final norm, which is Transformer Engine's.
    return model(config(is_hybrid_model=True), stack, 64, 16, hybrid_override_pattern="*-", post_process=False)


def heterogeneous() -> Any:
    kind = importlib.import_module("megatron.core.transformer.heterogeneous.heterogeneous_config")
    specs = importlib.import_module("megatron.core.models.gpt.heterogeneous.heterogeneous_layer_specs")
    attention = {"n_heads_in_group": 1, "no_op": False, "replace_with_linear": False}
    layers = [{"attention": attention, "ffn": {"ffn_mult": mult}} for mult in (2.0, 4.0)]
    encoded = json.dumps({"block_configs": layers})
    of = config(kind.HeterogeneousTransformerConfig, heterogeneous_layers_config_encoded_json=encoded)
    return gpt(specs.get_gpt_heterogeneous_layer_spec(of), of)


def moe() -> Any:
    of = config(num_moe_experts=2)
    return gpt(gpt_layer_specs.get_gpt_layer_local_spec(num_experts=2), of)


def mla() -> Any:
    """The setting alone: megatron-core's layers for it need Transformer Engine."""
    model = gpt()
    model.config.multi_latent_attention = True
    return model


def no_self_attention() -> Any:
    """megatron-core's cross-attention in the place of self-attention."""
    spec = t5_decoder_layer()
    return gpt(changed_spec(self_attention=spec.submodules.cross_attention))


def multi_token() -> Any:
    of, spec = config(mtp_num_layers=1), gpt_layer_specs.get_gpt_layer_local_spec()
    block = gpt_layer_specs.get_gpt_mtp_block_spec(of, spec, use_transformer_engine=False)
    return gpt(spec, of, mtp_block_spec=block)


def t5_decoder_layer() -> ModuleSpec:
    specs = importlib.import_module("megatron.core.models.T5.t5_spec")
    return specs.get_t5_decoder_with_local_block_spec(2).layer_specs[0]


def changed_spec(**changes: Any) -> ModuleSpec:
    """megatron-core's local GPT layer with other submodules."""
    spec = copy.deepcopy(gpt_layer_specs.get_gpt_layer_local_spec())
    spec.submodules = replace(spec.submodules, **changes)
    return spec


class OtherLayer(TransformerLayer):
    """Somebody's own layer."""


def other_add(training: bool, fused: bool) -> Any:
    """Somebody's own residual add."""
    return get_bias_dropout_add(training, fused)


def bidirectional() -> Any:
    spec = gpt_layer_specs.get_gpt_layer_local_spec()
    spec.submodules.self_attention.params = {"attn_mask_type": AttnMaskType.no_mask}
    return gpt(spec)


def wrapped() -> Any:
    return torch.nn.Sequential(gpt())


MODELS: dict[str, Callable[[], Any]] = {
    "T5Model": t5,
    "CLIPViTModel": vision,
    "MambaModel": hybrid,
    "heterogeneous layers": heterogeneous,
    "mixture of experts (TransformerConfig.num_moe_experts)": moe,
    "multi-latent attention": mla,
    "multi-token prediction": multi_token,
    "layers with cross-attention": lambda: gpt(t5_decoder_layer()),
    "attention of class CrossAttention": no_self_attention,
    "layers of class OtherLayer": lambda: gpt(replace(changed_spec(), module=OtherLayer)),
    "a residual add other than megatron-core's (mlp_bda: other_add)": lambda: gpt(changed_spec(mlp_bda=other_add)),
    "a GPTModel whose attention has the mask 'no_mask'": bidirectional,
    "a Sequential": wrapped,
}


def refused_models() -> dict[str, list[str]]:
    """What `apply_scheme`, with weights and without, and `model_shape` say to each of MODELS; "" where they accept."""
    calls = [
        partial(apply_scheme, scheme="dslm", seed=1),
        partial(apply_scheme, scheme=apply_scheme(gpt(), "megatron", seed=1), seed=1, initialize=False),
        model_shape,
    ]
    return {name: [message_of(call, build()) for call in calls] for name, build in MODELS.items()}


def message_of(call: Callable[[Any], Any], argument: Any) -> str:
    """The UserError's message, or nothing."""
    try:
        call(argument)
    except UserError as error:
        return str(error)
    return ""


def refused_specs() -> dict[str, list[str]]:
    """What `with_norm_placement`, "pre" and "post", says to specs that it cannot serve."""
    t5_specs = importlib.import_module("megatron.core.models.T5.t5_spec")
    local = gpt_layer_specs.get_gpt_layer_local_spec
    specs = {
        "a TransformerBlockSubmodules": t5_specs.get_t5_encoder_with_local_block_spec(2),
        "layers with cross-attention": t5_decoder_layer(),
        "whose self_attention is of class MLASelfAttention": local(multi_latent_attention=True),
        "whose mlp is of class MoELayer": local(num_experts=2),
        "layers of class OtherLayer": replace(changed_spec(), module=OtherLayer),
    }
    return {
        name: [message_of(partial(with_norm_placement, norm_placement=one), spec) for one in ("pre", "post")]
        for name, spec in specs.items()
    }


def placed_twice() -> list[str]:
    """Layer classes of megatron-core's BERT spec, placed "post", and then "pre"."""
    post = with_norm_placement(bert_layer_specs.bert_layer_local_spec, "post")
    return [post.module.__name__, with_norm_placement(post, "pre").module.__name__]


def foreign_prescriptions() -> dict[str, str]:
    """What `apply_scheme` says to a prescription of a model that differs in one thing; "" where it accepts."""
    own = model_shape(gpt())
    changes = {"num_layers": own.num_layers + 1, "hidden_size": 2 * own.hidden_size, "causal": False}
    changes |= {"attention_dropout": 0.5, "seq_length": 2 * own.seq_length}
    messages = {}
    for name, value in changes.items():
        foreign = build_scheme("megatron", replace(own, **{name: value}))
        messages[name] = message_of(partial(apply_scheme, scheme=foreign, seed=1), gpt())
    return messages


def failed_apply() -> tuple[bool, bool]:
    """Whether outputs and weights are as they were after a scheme that met a weight without a rule."""
    net = vanilla_workers.build("gpt", layer_spec("gpt", "local", "pre"))
    apply_scheme(net, "megatron", seed=SEED)
    before = vanilla_workers.loss_and_gradients(net, "gpt")
    net.zero_grad(set_to_none=True)
    net.mystery = torch.nn.Linear(4, 4, bias=False)
    refused = "mystery.weight" in message_of(partial(apply_scheme, scheme="dslm", seed=SEED + 1), net)
    del net.mystery
    again = vanilla_workers.loss_and_gradients(net, "gpt")
    return refused, all(torch.equal(again[name], value) for name, value in before.items())
