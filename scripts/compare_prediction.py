"""The theory's prediction against real megatron-core models at initialisation, layer by layer, on random tokens.

    python scripts/compare_prediction.py RESULTS.jsonl [--layers bert-12,gpt-12,...] [--minutes M] [--table]

For each model (BERT and GPT, depth, norm placement, activation, dropout, scheme) draws seeds until the standard error
of the means is under 2 % (correlations: 0.006) at every layer, or --most-seeds are done, and appends one line to
RESULTS.jsonl; models that have a line already are skipped. Tokens follow Zipf's law, BERT's segments
part at a uniform position, and the gradient at the last layer's output is standard normal. Ends with all lines, or
with the table of docs/theory.md: the worst gap over the models of a row, and its standard error.
"""

import dslm_patches.cpu

dslm_patches.cpu.install()  # before megatron-core is imported

# isort: split
import argparse
import itertools
import json
import math
import os
import socket
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from megatron.core import parallel_state
from megatron.core.models.bert.bert_model import BertModel
from megatron.core.models.gpt.gpt_model import GPTModel
from megatron.core.tensor_parallel.random import model_parallel_cuda_manual_seed
from megatron.core.transformer import TransformerConfig
from megatron.core.transformer.enums import AttnBackend

from dslm_patches.mcore import apply_scheme, layer_spec, model_shape
from dslm_patches.schemes import SchemeOptions
from dslm_patches.schemes.prediction import predict
from dslm_patches.theory.ffn import FFN_ACTIVATIONS
from dslm_patches.theory.moments import OutsideTheoryWarning
from dslm_patches.torch_activations import TORCH_ACTIVATIONS
from dslm_patches.tracing import Tracer

MEASURED = ("variance", "correlation")
DEPTHS = "bert-12,gpt-12,bert-24,gpt-48,bert-96,bert-192"


@dataclass(frozen=True)
class Case:
    """One model."""

    model: str
    num_layers: int
    norm_placement: str
    activation: str
    dropout: float
    scheme: str


@dataclass(frozen=True)
class Size:
    """What all models have in common."""

    hidden_size: int = 256
    num_heads: int = 4
    seq_length: int = 128
    batch: int = 2
    vocab_size: int = 8192


def build(case: Case, size: Size) -> Any:
    """The model, its weights not drawn yet, without the head that stands behind the last layer."""
    function, gated = FFN_ACTIVATIONS[case.activation]
    config = TransformerConfig(
        num_layers=case.num_layers,
        hidden_size=size.hidden_size,
        num_attention_heads=size.num_heads,
        ffn_hidden_size=8 * size.hidden_size // 3 if gated else 4 * size.hidden_size,
        hidden_dropout=case.dropout,
        attention_dropout=case.dropout,
        activation_func=TORCH_ACTIVATIONS[function],
        gated_linear_unit=gated,
        init_method=lambda weight: weight,
        output_layer_init_method=lambda weight: weight,
        embedding_init_method=lambda weight: weight,
        use_cpu_initialization=True,
        attention_backend=AttnBackend.local,
        gradient_accumulation_fusion=False,
        bias_activation_fusion=False,
        bias_dropout_fusion=False,
        masked_softmax_fusion=False,
        pipeline_dtype=torch.float32,
    )
    options: dict[str, Any] = {
        "config": config,
        "transformer_layer_spec": layer_spec(case.model, "local", case.norm_placement),
        "vocab_size": size.vocab_size,
        "max_sequence_length": size.seq_length,
        "post_process": False,
        "share_embeddings_and_output_weights": True,
        "position_embedding_type": "learned_absolute",
    }
    model = BertModel(num_tokentypes=2, **options) if case.model == "bert" else GPTModel(**options)
    # Only gradients of activations are wanted; one weight at the bottom keeps the graph.
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    model.embedding.word_embeddings.weight.requires_grad_(True)
    return model.train()


def measure(model: Any, case: Case, size: Size, seed: int) -> np.ndarray:
    """Moments [layers, 4] of one draw of weights, tokens, dropout and top gradient."""
    apply_scheme(model, case.scheme, seed=seed, options=SchemeOptions(norm_placement=case.norm_placement))
    torch.manual_seed(seed)
    model_parallel_cuda_manual_seed(seed)
    shape = (size.batch, size.seq_length)
    frequencies = 1.0 / torch.arange(1, size.vocab_size + 1, dtype=torch.float64)
    tokens = torch.multinomial(frequencies, math.prod(shape), replacement=True).view(shape)
    positions = torch.arange(size.seq_length).expand(shape)
    if case.model == "bert":
        segments = (positions >= torch.rand(size.batch, 1) * size.seq_length).long()
        mask = torch.ones(shape, dtype=torch.long)

        def forward() -> Any:
            return model(tokens, mask, tokentype_ids=segments)
    else:
        future = torch.ones(size.seq_length, size.seq_length, dtype=torch.bool).triu(1)[None, None]

        def forward() -> Any:
            return model(tokens, positions, future)

    tracer = Tracer([model])
    tracer.start()
    output = forward()  # without a head, the last layer's
    output.backward(torch.randn_like(output))
    site = tracer.collect().sites["layer"]
    tracer.remove()
    model.zero_grad(set_to_none=True)
    return np.stack([getattr(way, name) for way in (site.activation, site.gradient) for name in MEASURED], axis=1)


def compare(case: Case, size: Size, most_seeds: int) -> dict[str, Any]:
    """Largest gaps between prediction and measurement over the layers, and where."""
    model = build(case, size)
    draws: list[np.ndarray] = []
    while len(draws) < most_seeds:
        draws.append(measure(model, case, size, seed=len(draws) + 1))
        if len(draws) >= 4 and _settled(draws):
            break
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        scheme = apply_scheme(
            model, case.scheme, seed=1, options=SchemeOptions(norm_placement=case.norm_placement), initialize=False
        )
        profile = predict(model_shape(model), scheme)
    mean, error = np.mean(draws, axis=0), _errors(draws)
    forward = np.array([(x.mean_variance, x.correlation) for x in profile.forward[1:]])
    gradient = np.array([(x.mean_variance, x.correlation) for x in profile.gradient[1:]])
    gaps = {
        "variance_percent": 100.0 * (mean[:, 0] / forward[:, 0] - 1.0),
        "correlation": mean[:, 1] - forward[:, 1],
        "gradient_percent": 100.0 * (mean[:, 2] / gradient[:, 0] - 1.0),
        "gradient_correlation": mean[:, 3] - gradient[:, 1],
    }
    result: dict[str, Any] = {"case": case.__dict__, "size": size.__dict__, "seeds": len(draws)}
    for name, gap in gaps.items():
        worst = int(np.abs(gap).argmax())
        result[name] = {"worst": round(float(gap[worst]), 4), "layer": worst + 1, "rms": round(_rms(gap), 4)}
    result["standard_error_percent"] = {
        "variance": round(100.0 * float(error[:, 0].max()), 2),
        "gradient": round(100.0 * float(error[:, 2].max()), 2),
    }
    result["standard_error_correlation"] = round(float((error[:, 1] * np.abs(mean[:, 1])).max()), 4)
    result["warnings"] = sorted({str(one.message) for one in caught if one.category is OutsideTheoryWarning})
    return result


def _settled(draws: list[np.ndarray]) -> bool:
    """Standard errors under 2 % for variances and under 0.006 for the correlation, at every layer."""
    errors = _errors(draws)
    return errors[:, [0, 2]].max() < 0.02 and (errors[:, 1] * np.abs(np.mean(draws, axis=0)[:, 1])).max() < 0.006


def _errors(draws: list[np.ndarray]) -> np.ndarray:
    """Standard error of the mean over seeds, relative."""
    return np.std(draws, axis=0, ddof=1) / math.sqrt(len(draws)) / np.abs(np.mean(draws, axis=0))


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(values**2)))


def line(result: dict[str, Any]) -> str:
    """One result for a person."""
    case = " ".join(str(value) for value in result["case"].values())
    variance, correlation, gradient = (result[n] for n in ("variance_percent", "correlation", "gradient_percent"))
    error = result["standard_error_percent"]
    return (
        f"{case:<36} variance {variance['worst']:+6.1f} % (se {error['variance']:.1f})  correlation "
        f"{correlation['worst']:+.3f}  gradient {gradient['worst']:+7.1f} % (se {error['gradient']:.1f})  "
        f"{result['seeds']} seeds"
    )


def table(results: list[dict[str, Any]]) -> str:
    """Markdown, a row for each depth, placement and scheme."""
    rows: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for result in results:
        case = result["case"]
        key = f"{case['model'].upper()} {case['num_layers']}, {case['norm_placement']}-LN", case["scheme"]
        rows.setdefault(key, []).append(result)
    lines = [
        "| model | scheme | activations, dropout (models) | variance % | correlation | gradient variance % (error) |",
        "|---|---|---|---|---|---|",
    ]
    for (model, scheme), group in rows.items():
        cases = [one["case"] for one in group]
        activations = ", ".join(sorted({one["activation"] for one in cases}))
        dropouts = ", ".join(map(str, sorted({one["dropout"] for one in cases})))
        variance, correlation, gradient = (
            max(group, key=lambda one: abs(one[name]["worst"]))
            for name in ("variance_percent", "correlation", "gradient_percent")
        )
        lines.append(
            f"| {model} | {scheme} | {activations}; {dropouts} ({len(group)}) "
            f"| {variance['variance_percent']['worst']:+.1f} "
            f"| {correlation['correlation']['worst']:+.3f} | {gradient['gradient_percent']['worst']:+.1f} "
            f"({gradient['standard_error_percent']['gradient']:.1f}) |"
        )
    return "\n".join(lines)


def main() -> None:
    """Runs what is not in the results yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("--layers", default=DEPTHS, help=f"models and depths; default {DEPTHS}")
    parser.add_argument("--activations", default="gelu,relu,swiglu")
    parser.add_argument("--dropouts", default="0.1,0.0")
    parser.add_argument("--schemes", default="dslm,xavier,megatron")
    parser.add_argument("--hidden-size", type=int, default=256)
    parser.add_argument("--most-seeds", type=int, default=64)
    parser.add_argument("--table", action="store_true", help="end with a table in Markdown")
    parser.add_argument("--minutes", type=float, default=math.inf, help="start no model after this long")
    args = parser.parse_args()
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    os.environ.update(MASTER_ADDR="localhost", MASTER_PORT=str(port))
    torch.distributed.init_process_group("gloo", rank=0, world_size=1)
    parallel_state.initialize_model_parallel()
    model_parallel_cuda_manual_seed(1)
    size = Size(hidden_size=args.hidden_size)
    lines = args.results.read_text().splitlines() if args.results.exists() else []
    done = {json.dumps([one["case"], one["size"]]) for one in map(json.loads, lines)}
    start = time.monotonic()
    for depth, placement, activation, dropout, scheme in itertools.product(
        args.layers.split(","),
        ("pre", "post"),
        args.activations.split(","),
        args.dropouts.split(","),
        args.schemes.split(","),
    ):
        model, layers = depth.split("-")
        case = Case(model, int(layers), placement, activation, float(dropout), scheme)
        if json.dumps([case.__dict__, size.__dict__]) in done or time.monotonic() - start > 60.0 * args.minutes:
            continue
        result = compare(case, size, args.most_seeds)
        print(line(result), file=sys.stderr, flush=True)
        with args.results.open("a") as file:
            file.write(json.dumps(result) + "\n")
    torch.distributed.destroy_process_group()
    results = [json.loads(text) for text in args.results.read_text().splitlines()]
    print(table(results) if args.table else "\n".join(map(line, results)))


if __name__ == "__main__":
    main()
