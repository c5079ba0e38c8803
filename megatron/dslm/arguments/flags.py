"""The flags, group by group. Names are Megatron-LM's wherever it has one."""

import argparse

from dslm_patches.schemes import scheme_names
from dslm_patches.tracing.names import SITES
from megatron.dslm.checkpoints.settings import CLASSES, OnResume

Parser = argparse.ArgumentParser


def _names(kind: OnResume) -> str:
    return ", ".join(name.replace("_", "-") for name in CLASSES[kind])


def add_model(parser: Parser, model: str) -> None:
    """Architecture."""
    group = parser.add_argument_group("model")
    add = group.add_argument
    add("--num-layers", type=int, required=True, help="transformer layers")
    add("--hidden-size", type=int, required=True, help="width of the hidden states")
    add("--num-attention-heads", type=int, required=True)
    add("--ffn-hidden-size", type=int, help="FFN width; default 4 x hidden size, 8/3 x when gated")
    add("--kv-channels", type=int, help="head width; default hidden size / heads")
    add("--group-query-attention", action="store_true", help="share keys and values between heads")
    add("--num-query-groups", type=int, help="key-value heads of --group-query-attention; default 1")
    add("--seq-length", type=int, required=True, help="tokens a sequence")
    add("--max-position-embeddings", type=int, help="longest sequence; default --seq-length")
    add("--position-embedding-type", choices=("learned_absolute", "rope"), default="learned_absolute")
    add("--rotary-percent", type=float, default=1.0, help="share of the head that RoPE turns")
    add("--rotary-base", type=int, default=10000, help="base period of RoPE")
    add("--activation", choices=("gelu", "relu", "silu", "geglu", "swiglu"), help="FFN activation; default gelu")
    add("--swiglu", action="store_true", help="Megatron-LM's spelling of --activation swiglu")
    add("--normalization", choices=("LayerNorm", "RMSNorm"), default="LayerNorm")
    add("--norm-epsilon", type=float, default=1e-5)
    add("--disable-bias-linear", action="store_true", help="linears without biases")
    add("--untie-embeddings-and-output-weights", action="store_true")
    add("--make-vocab-size-divisible-by", type=int, default=128, help="the vocabulary is padded to this")
    if model == "bert":
        add("--bert-no-binary-head", action="store_true", help="masked LM alone, no next-sentence head")


def add_depth_scheme(parser: Parser, model: str) -> None:
    """The method."""
    group = parser.add_argument_group(
        "depth scheme", "how weights are drawn, residuals scaled and LayerNorms placed (arXiv 2403.09635)"
    )
    add = group.add_argument
    add("--dslm", action="store_true", help="DeepScaleLM, the whole method: --depth-scheme dslm")
    add("--depth-scheme", choices=scheme_names(), help="default megatron")
    add("--norm-placement", choices=("pre", "post"), help="LayerNorm before each branch, or on the skip; default pre")
    add(
        "--apply-residual-connection-post-layernorm",
        action="store_true",
        help="Megatron-LM's spelling of --norm-placement post",
    )
    add("--dslm-k", type=float, help="beta^2 = k / N^alpha, lambda^2 = 1 - beta^2; default 2")
    add("--dslm-alpha", type=float, help="default 1")
    add("--dslm-lambda-sq", "--moment-control-lambda-sq", type=float, help="lambda^2 outright")
    add("--dslm-beta-sq", "--moment-control-beta-sq", type=float, help="beta^2 outright")
    add(
        "--dslm-input-correlation",
        type=float,
        help="token correlation of the embeddings before dropout; default by Zipf's law over the vocabulary",
    )
    add("--init-method-std", type=float, help="std of --depth-scheme megatron; default 0.02")
    add("--moment-control-sigma", action="store_true", help="the original project's: DeepScaleLM's init")
    add("--moment-control-lambda-beta", action="store_true", help="the original project's: its residual scaling")
    add("--xavier-flag-sigma", action="store_true", help="the original project's: --depth-scheme xavier")


def add_dropout(parser: Parser, model: str) -> None:
    """Dropout, which the depth scheme reckons with."""
    add = parser.add_argument_group("dropout").add_argument
    add("--attention-dropout", type=float, default=0.1, help="of attention weights; default 0.1")
    add("--hidden-dropout", type=float, default=0.1, help="of embeddings and of each branch's output; default 0.1")


def add_parallelism(parser: Parser, model: str) -> None:
    """Layout over ranks."""
    group = parser.add_argument_group("parallelism", "ranks = tensor x pipeline x data")
    add = group.add_argument
    add("--tensor-model-parallel-size", type=int, default=1)
    add("--pipeline-model-parallel-size", type=int, default=1)
    add("--num-layers-per-virtual-pipeline-stage", type=int, help="interleaved pipeline schedule")
    add("--sequence-parallel", action="store_true", help="shard activations between the tensor-parallel regions")
    add("--use-distributed-optimizer", action="store_true", help="shard the optimizer over data-parallel ranks")
    add("--overlap-grad-reduce", action="store_true", help="reduce gradients while backward runs")
    add("--overlap-param-gather", action="store_true", help="gather parameters while forward runs")
    add("--distributed-timeout-minutes", type=float, default=10.0)
    add(
        "--hang-timeout-seconds",
        type=float,
        default=20.0,
        help="end a job of several ranks when none got on for so long, and for five times the longest; 0 never does",
    )
    add("--recompute-granularity", choices=("full", "selective"), help="recompute activations in backward")
    add("--recompute-method", choices=("uniform", "block"))
    add("--recompute-num-layers", type=int)


def add_training(parser: Parser, model: str) -> None:
    """Batches, steps, optimizer."""
    group = parser.add_argument_group("training")
    add = group.add_argument
    add("--micro-batch-size", type=int, required=True, help="sequences a forward pass of one data-parallel rank")
    add("--global-batch-size", type=int, help="sequences a step; default micro batch x data-parallel ranks")
    add("--exit-interval", type=int, help="save and leave when the iteration is divisible by this")
    add(
        "--on-non-finite",
        choices=("halt", "skip"),
        default="halt",
        help="where a loss or gradient norm is not finite nothing is updated; then stop (default), or skip and count",
    )
    add("--seed", type=int, default=1234, help="of weights, data order and dropout")
    add("--optimizer", choices=("adam", "sgd"), default="adam")
    add("--weight-decay", type=float, default=0.01)
    add("--adam-beta1", type=float, default=0.9)
    add("--adam-beta2", type=float, default=0.999)
    add("--adam-eps", type=float, default=1e-8)
    add("--sgd-momentum", type=float, default=0.9)
    add("--clip-grad", type=float, default=1.0, help="clip the global gradient norm to this; 0 clips nothing")
    add("--bf16", action="store_true", help="bfloat16 with fp32 master weights and gradients")
    add(
        "--cpu-kernels",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="on CPU, operations written for it in place of megatron-core's own; nothing to a GPU",
    )
    add(
        "--transformer-impl",
        choices=("local", "transformer_engine"),
        help="layers; default transformer_engine on a GPU where it is installed, else local",
    )


def add_length(parser: Parser, model: str) -> None:
    """How long to pretrain."""
    parser.add_argument_group("length").add_argument("--train-iters", type=int, required=True, help="optimizer steps")


def add_learning_rate(parser: Parser, model: str) -> None:
    """Learning-rate schedule."""
    group = parser.add_argument_group("learning rate")
    add = group.add_argument
    add("--lr", type=float, required=True, help="peak learning rate")
    add("--min-lr", type=float, default=0.0)
    add(
        "--lr-decay-style",
        choices=("constant", "linear", "cosine", "inverse-square-root", "WSD"),
        default="linear",
    )
    add("--lr-decay-iters", type=int, help="default --train-iters")
    add("--lr-warmup-iters", type=int, default=0)
    add("--lr-warmup-fraction", type=float, help="warm-up as a share of --lr-decay-iters")
    add("--lr-warmup-init", type=float, default=0.0)
    add(
        "--override-opt-param-scheduler",
        action="store_true",
        help="go on from --load with the learning rate's course and the optimizer's numbers of these flags, not with "
        "those that the run began with",
    )
    add("--lr-wsd-decay-iters", type=int, help="length of the final decay of WSD")
    add("--lr-wsd-decay-style", choices=("linear", "cosine", "exponential"), default="exponential")


def add_tokenizer(parser: Parser, model: str) -> None:
    """Vocabulary."""
    tokenizers = ("BertWordPieceLowerCase", "BertWordPieceCase", "GPT2BPETokenizer")
    add = parser.add_argument_group("tokenizer").add_argument
    add("--tokenizer-type", choices=tokenizers, default=tokenizers[0] if model == "bert" else tokenizers[2])
    add("--vocab-file", required=True, help="vocab.txt of WordPiece, or encoder json of GPT-2 BPE")
    add("--merge-file", help="merges of GPT-2 BPE")
    add(
        "--num-workers",
        type=int,
        help="data loading processes a rank; default 2 on GPU, 1 on CPU from 4 cores a rank on, else 0",
    )


def add_data(parser: Parser, model: str) -> None:
    """Corpus."""
    add = parser.add_argument_group("data").add_argument
    add("--data-path", nargs="+", help="prefix of .bin/.idx, or weight prefix weight prefix ...")
    add("--split", help="shares of train, validation and test in --data-path; default 969,30,1")
    add("--train-data-path", nargs="+", help="in place of --data-path")
    add("--valid-data-path", nargs="+")
    add("--test-data-path", nargs="+")
    add("--data-cache-path", help="where sample indices are kept; default beside the data")
    if model == "bert":
        add("--mask-prob", type=float, default=0.15, help="share of tokens that are predicted")
        add("--short-seq-prob", type=float, default=0.1, help="share of shorter sequences")


def add_checkpoints(parser: Parser, model: str) -> None:
    """Saving and resuming."""
    group = parser.add_argument_group("checkpoints")
    add = group.add_argument
    add("--save", help="folder for checkpoints; saved at the end too")
    add("--load", help="folder to resume from; a folder without a checkpoint starts anew")
    add(
        "--override-settings",
        nargs="+",
        default=[],
        metavar="NAME",
        help=f"go on from --load with these flags' values of these settings: {_names(OnResume.BY_NAME)}",
    )
    add("--save-interval", type=int, help="iterations between checkpoints")
    add("--keep-last", type=int, metavar="N", help="checkpoints that --save keeps; default all")
    add("--async-save", action="store_true", help="write checkpoints while training goes on")
    add(
        "--pretrained-checkpoint",
        metavar="FOLDER",
        help="weights to start from where --load holds no checkpoint: what --save wrote, in any layout, or a Hugging "
        "Face folder; without it the model starts from its depth scheme's initialisation",
    )


def add_logging(parser: Parser, model: str) -> None:
    """What is printed and written."""
    add = parser.add_argument_group("logging").add_argument
    add("--log-interval", type=int, default=10, help="iterations between progress lines")
    add("--tensorboard-dir", help="where TensorBoard events go")


def add_evaluation(parser: Parser, model: str) -> None:
    """What a pretraining run evaluates."""
    add = parser.add_argument_group("evaluation").add_argument
    add("--eval-interval", type=int, default=100, help="iterations between evaluations")
    add("--eval-iters", type=int, default=10, help="global batches an evaluation; 0 evaluates nothing")


def add_tracing(parser: Parser, model: str) -> None:
    """What is measured of every layer."""
    group = parser.add_argument_group(
        "tracing", "every layer's signal, measured over the whole batch in any layout, to TensorBoard and trace.jsonl"
    )
    add = group.add_argument
    add(
        "--trace-interval",
        type=int,
        help="iterations between traced ones, the first among them; 0 traces nothing; default 10 where there is a "
        "folder for traces",
    )
    sites = "; ".join(f"{name}: {told}" for name, told in SITES.items())
    add("--trace-sites", nargs="+", choices=SITES, help=f"what to trace; default layer. {sites}")
    add("--trace-dir", help="folder of trace.jsonl; default --tensorboard-dir")
    add("--trace-theory", action="store_true", help="draw the theory's prediction for the initial weights beside it")
    add(
        "--trace-halt-on",
        choices=("non-finite",),
        help="stop all ranks when a traced tensor is not finite, and say which",
    )
    add(
        "--trace-growth-limit",
        type=float,
        default=1.02,
        help="warn when gradient variance changes, in three traced steps in a row after the warm-up, by more than this "
        "factor a layer and by more than 100 in all; default 1.02",
    )
    add(
        "--trace-correlation-limit",
        type=float,
        default=0.98,
        help="warn when, as long, the tokens of a layer are more correlated than this; default 0.98",
    )


COMMON = (add_model, add_depth_scheme, add_dropout, add_parallelism, add_training, add_learning_rate, add_tokenizer)
"""Of pretraining and fine-tuning alike, in the order of --help."""
OUTPUTS = (add_checkpoints, add_logging, add_tracing)
GROUPS = (*COMMON, add_length, add_data, add_evaluation, *OUTPUTS)
"""Of pretraining."""
