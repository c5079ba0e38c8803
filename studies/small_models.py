"""The small models that the studies train, and the depth schemes they train them by."""

from dataclasses import dataclass
from pathlib import Path

from studies.runs import Run

DATA = Path("data/wikipedia")
SEQUENCE = 128
WARMUP = 50
DEEP = 200
"""Layers from which traces are taken where the loss is: each holds dozens of numbers a layer."""

SCHEMES: dict[str, tuple[str, ...]] = {
    "dslm": ("--dslm",),
    "dslm-k0.2": ("--dslm", "--dslm-k", "0.2"),
    "dslm-k0.5": ("--dslm", "--dslm-k", "0.5"),
    "dslm-k1": ("--dslm", "--dslm-k", "1"),
    "megatron": ("--depth-scheme", "megatron"),
    "megatron-std0.06": ("--depth-scheme", "megatron", "--init-method-std", "0.06"),
    "megatron-std0.125": ("--depth-scheme", "megatron", "--init-method-std", "0.125"),
    "xavier": ("--depth-scheme", "xavier"),
}
"""Flags by name; a name with "-post" at its end is the same with Post-LN."""


@dataclass(frozen=True)
class Setting:
    """What all runs of a study share.

    Attributes:
        model: "bert" or "gpt".
        sequences: of SEQUENCE tokens in a batch.
        steps: optimizer steps.
        evaluations: spread over them.
    """

    model: str
    layers: int
    steps: int
    hidden_size: int = 64
    heads: int = 2
    sequences: int = 8
    evaluations: int = 12


def scheme_flags(name: str) -> tuple[str, ...]:
    """The flags of a scheme by its name.

    Raises:
        KeyError: there is none of that name.
    """
    if name.endswith("-post"):
        return (*SCHEMES[name.removesuffix("-post")], "--norm-placement", "post")
    return SCHEMES[name]


def data_flags(model: str) -> tuple[str, ...]:
    """Real text in a small vocabulary, as scripts/prepare_demo_data.sh leaves it: a small output layer is cheap."""
    split = "--split 90,5,5 --make-vocab-size-divisible-by 64"
    if model == "gpt":
        vocabulary = f"--vocab-file {DATA}/characters-vocab.json --merge-file {DATA}/characters-merges.txt"
        words = f"--data-path {DATA}/characters_text_document {vocabulary} {split}"
    else:
        vocabulary = f"--vocab-file {DATA}/pieces-vocab.txt"
        words = f"--data-path {DATA}/pieces_text_sentence {vocabulary} --bert-no-binary-head {split}"
    return tuple(words.split())


def evaluation_interval(setting: Setting) -> int:
    """Steps between evaluations: a run of few steps is not evaluated at each of them."""
    return max(1, setting.steps // min(setting.evaluations, max(3, setting.steps // 5)))


def run_of(setting: Setting, scheme: str, lr: str, seed: int = 1234) -> Run:
    """A run of one scheme at one learning rate: RoPE, no dropout, warm-up, then a cosine to zero."""
    every = evaluation_interval(setting)
    traced = min(10, every) if setting.layers <= DEEP else every
    flags = (
        f"--num-layers {setting.layers} --hidden-size {setting.hidden_size} --num-attention-heads {setting.heads} "
        f"--seq-length {SEQUENCE} --position-embedding-type rope --hidden-dropout 0 --attention-dropout 0 "
        f"--micro-batch-size {setting.sequences} --lr {lr} --lr-decay-style cosine "
        f"--lr-warmup-iters {min(WARMUP, setting.steps // 2)} --eval-interval {every} --eval-iters 8 "
        f"--log-interval {min(10, every)} --trace-interval {traced} --seed {seed}"
    )
    words = (*scheme_flags(scheme), *flags.split(), *data_flags(setting.model))
    name = f"{scheme}-lr{lr}" + ("" if seed == 1234 else f"-seed{seed}")
    return Run(name, setting.model, words, setting.steps)
