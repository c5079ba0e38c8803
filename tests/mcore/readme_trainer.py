"""A trainer of plain megatron-core with the lines of the README, in a process of its own: `readme_trainer.py LINES`.

LINES is JSON: "runtime", "snippet", "kernels" and "placement". Prints JSON of what it measured.
"""

import json
import sys
from typing import Any

import torch


def main() -> None:
    lines = json.loads(sys.argv[1])
    exec(lines["runtime"], {})  # before megatron-core is imported
    from megatron.core import parallel_state, tensor_parallel

    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    parallel_state.initialize_model_parallel()
    tensor_parallel.model_parallel_cuda_manual_seed(1)
    names = given()
    exec(lines["snippet"], names)
    if lines["kernels"]:
        exec(lines["kernels"], names)
    print(json.dumps(measured(names["model"])))


def given() -> dict[str, Any]:
    """What the README takes for there already: `spec`, `config`, `BertModel`, and in `rest` what stands for "..."."""
    from megatron.core.models.bert.bert_layer_specs import bert_layer_local_spec
    from megatron.core.models.bert.bert_model import BertModel
    from megatron.core.transformer import TransformerConfig
    from megatron.core.transformer.enums import AttnBackend

    config = TransformerConfig(
        num_layers=16,
        hidden_size=256,
        num_attention_heads=4,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        attention_backend=AttnBackend.local,
        use_cpu_initialization=True,
    )
    rest = {"num_tokentypes": 2, "vocab_size": 512, "max_sequence_length": 64}
    rest["share_embeddings_and_output_weights"] = True
    return {"spec": bert_layer_local_spec, "config": config, "BertModel": BertModel, "rest": rest}


def measured(model: Any) -> dict[str, Any]:
    """Each layer's variance, residual coefficients, logits' variance, gradient norms; modules that should not be."""
    variances: list[float] = []
    coefficients = []
    for layer in model.encoder.layers:
        layer.register_forward_hook(lambda _layer, _inputs, output: variances.append(output[0].var().item()))
        coefficients.append(sum_of_ones(layer))
    torch.manual_seed(0)
    tokens = torch.randint(512, (8, 64))
    logits, _ = model(tokens, torch.ones(8, 64), tokentype_ids=tokens * 0)
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens.flatten()).backward()
    return {
        "class": type(model.encoder.layers[0]).__name__,
        "variances": variances,
        "coefficients": coefficients,
        "logits": logits.var().item(),
        "gradients": [layer.mlp.linear_fc2.weight.grad.norm().item() for layer in model.encoder.layers],
        "of the trainer": [name for name in sys.modules if name.startswith("megatron.dslm")],
    }


def sum_of_ones(layer: Any) -> list[list[float]]:
    """[skip, branch] of the layer's two adds, as they do with a residual of 1 and 0 and a branch of 0 and 1."""
    one, zero = torch.ones(1, 1, 1), torch.zeros(1, 1, 1)
    adds = [bda(True, False) for bda in (layer.self_attn_bda, layer.mlp_bda)]
    return [[add((zero, None), one, 0.0).item(), add((one, None), zero, 0.0).item()] for add in adds]


if __name__ == "__main__":
    main()
