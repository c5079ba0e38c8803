"""Models by the CPU's kernels, from a layer spec and after they are built, inside a rank."""

import copy
from functools import partial
from typing import Any

import torch
from megatron.core.models.bert.bert_model import BertModel
from megatron.core.models.gpt import GPTModel
from megatron.core.tensor_parallel import ColumnParallelLinear, RowParallelLinear
from megatron.core.tensor_parallel.random import model_parallel_cuda_manual_seed
from megatron.core.transformer import TransformerConfig
from megatron.core.transformer.attention import SelfAttention
from megatron.core.transformer.dot_product_attention import DotProductAttention
from megatron.core.transformer.enums import AttnBackend
from megatron.core.transformer.mlp import MLP, MLPSubmodules

from dslm_patches.mcore import (
    apply_scheme,
    layer_spec,
    use_cpu_kernels,
    use_cpu_kernels_around_layers,
    with_cpu_kernels,
    with_norm_placement,
)
from tests.mcore import vanilla_workers


def both_ways(model: str, placement: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Which outputs and gradients of a model built from `with_cpu_kernels` are not bit for bit those of one that was
    given its kernels when it was built; whether a plain model's differ; what was built."""
    plain = layer_spec(model, "local", "pre")
    before = copy.deepcopy(plain)
    spec = with_norm_placement(with_cpu_kernels(plain), placement)  # type: ignore[arg-type]
    other_order = with_cpu_kernels(with_norm_placement(plain, placement))  # type: ignore[arg-type]
    of_spec = _measured(model, spec, settings, use_cpu_kernels_around_layers)
    built = _measured(model, with_norm_placement(plain, placement), settings, use_cpu_kernels)  # type: ignore[arg-type]
    untouched = _measured(model, with_norm_placement(plain, placement), settings, lambda net: net)  # type: ignore[arg-type]
    return {
        "unequal": [name for name, value in built[0].items() if not torch.equal(of_spec[0][name], value)],
        "names": list(of_spec[0]) == list(built[0]),
        "unlike a plain model": not torch.equal(of_spec[0]["losses"], untouched[0]["losses"]),
        "specs": spec == other_order and plain == before,
        "classes": of_spec[1],
    }


def _measured(
    kind: str, spec: Any, settings: dict[str, Any], finish: Any
) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    config = TransformerConfig(
        num_layers=3,
        hidden_size=32,
        num_attention_heads=4,
        **{"hidden_dropout": 0.1, "attention_dropout": 0.1, **settings},
        attention_backend=AttnBackend.local,
        use_cpu_initialization=True,
    )
    common = {"vocab_size": vanilla_workers.VOCABULARY, "max_sequence_length": vanilla_workers.LENGTH}
    net: Any = BertModel(config, 2, spec, **common) if kind == "bert" else GPTModel(config, spec, **common)
    finish(net)
    apply_scheme(net, "dslm", seed=3)
    (layer, *_) = (net.encoder if kind == "bert" else net.decoder).layers
    classes = {
        "qkv": type(layer.self_attention.linear_qkv).__name__,
        "core": type(layer.self_attention.core_attention).__name__,
        "fc1": type(layer.mlp.linear_fc1).__name__,
        "fc2": type(layer.mlp.linear_fc2).__name__,
    }
    model_parallel_cuda_manual_seed(1)  # attention's dropout draws from a state of its own
    return vanilla_workers.loss_and_gradients(net, kind), classes


def parts_of_others() -> dict[str, Any]:
    """What becomes of parts that are not megatron-core's own, and of an MLP in the form of its newer versions."""

    class Linear(ColumnParallelLinear):
        """Somebody's own."""

    class Core(DotProductAttention):
        """Somebody's own."""

    spec = layer_spec("gpt", "local", "pre")
    attention = spec.submodules.self_attention
    attention.submodules.linear_qkv, attention.submodules.core_attention = Linear, Core
    spec.submodules.mlp = partial(
        MLP, submodules=MLPSubmodules(linear_fc1=ColumnParallelLinear, linear_fc2=RowParallelLinear)
    )
    ours = with_cpu_kernels(spec).submodules
    mlp = ours.mlp.keywords["submodules"]
    return {
        "qkv": ours.self_attention.submodules.linear_qkv is Linear,
        "core": ours.self_attention.submodules.core_attention is Core,
        "attention": issubclass(ours.self_attention.module, SelfAttention),
        "mlp": (ours.mlp.func is MLP, mlp.linear_fc1.__name__, mlp.linear_fc2.__name__),
    }
