"""What users get wrong, as data: the program, what is changed in a command that works, what the one line must name."""

import json
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.reliability.site import (
    QQP_HEADER,
    WORDPIECES,
    fake_checkpoint,
    finetuning_flags,
    pretraining_flags,
    words,
    write_data,
)


@dataclass(frozen=True)
class BadInput:
    """One mistake.

    Attributes:
        changes: flags of the program's working command that are changed or, by None, left out; {site} is its folder.
        extra: words behind it.
        named: what the line must hold.
        ranks: how many ranks torchrun started.
        damage: what is done to the folder before.
        command_line: in place of all the others, a command line of its own.
    """

    name: str
    named: tuple[str, ...]
    changes: dict[str, str | None] = field(default_factory=dict)
    extra: str = ""
    program: str = "pretrain_bert.py"
    ranks: int = 1
    damage: Callable[[Path], object] | None = None
    command_line: str | None = None
    environment: dict[str, str] = field(default_factory=dict)

    def command(self, site: Path) -> list[str]:
        """Program and arguments in a site."""
        if self.command_line is not None:
            return [self.program, *self.command_line.format(site=site).split()]
        flags = finetuning_flags(site) if self.program == "finetune.py" else pretraining_flags(site)
        flags |= {name: value and value.format(site=site) for name, value in self.changes.items()}
        return [self.program, *words(flags), *self.extra.format(site=site).split()]


def _out_of_range(name: str, *values: str, program: str = "pretrain_bert.py", extra: str = "") -> list[BadInput]:
    flag = "--" + name.replace("_", "-")
    return [
        BadInput(f"{flag} {value} {program}", (flag, value.lstrip("-")), {name: value}, extra, program)
        for value in values
    ]


def _rewrite(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda site: (site / name).write_bytes(content)


def _cut(name: str, size: int) -> Callable[[Path], object]:
    return lambda site: os.truncate(site / name, size)


def _data(sentences: list[list[int]], documents: list[int]) -> Callable[[Path], object]:
    return lambda site: write_data(site / "tiny", sentences, documents)


def _patched_index(offset: int, fmt: str, value: int) -> Callable[[Path], object]:
    def damage(site: Path) -> None:
        content = bytearray((site / "tiny.idx").read_bytes())
        struct.pack_into(fmt, content, offset, value)
        (site / "tiny.idx").write_bytes(content)

    return damage


def _vocabulary(*tokens: str) -> Callable[[Path], object]:
    return _rewrite("vocab.txt", ("\n".join(tokens) + "\n").encode())


def _both(one: Callable[[Path], object], other: Callable[[Path], object]) -> Callable[[Path], object]:
    return lambda site: (one(site), other(site))


def _in_both(act: Callable[[Path], object]) -> Callable[[Path], object]:
    """The same to both checkpoints of the site."""
    return lambda site: [act(site / "saved" / f"iter_{number:07d}") for number in (10, 20)]


def _renamed_in_manifest(folder: Path) -> None:
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace("__0_0.distcp", "../tiny.bin"))


def _linked(folder: Path) -> None:
    (folder / "__0_0.distcp").rename(folder.parent / "elsewhere")
    (folder / "__0_0.distcp").symlink_to(folder.parent / "elsewhere")


def _saved(**changes: object) -> Callable[[Path], object]:
    return lambda site: fake_checkpoint(site, site / "other", 7, **changes)


def _hf_folder(config: str, *files: str) -> Callable[[Path], object]:
    def damage(site: Path) -> None:
        (site / "hf").mkdir()
        (site / "hf" / "config.json").write_text(config)
        for name in files:
            (site / "hf" / name).write_bytes(b"x")

    return damage


_OVERRIDE = "--override-opt-param-scheduler"
_RANGES = [
    *_out_of_range("num_layers", "-4", "0", "two"),
    *_out_of_range("hidden_size", "0"),
    *_out_of_range("num_attention_heads", "0"),
    *_out_of_range("ffn_hidden_size", "-1"),
    *_out_of_range("kv_channels", "0"),
    *_out_of_range("seq_length", "0", "4", "1.5"),
    *_out_of_range("max_position_embeddings", "16"),
    *_out_of_range("micro_batch_size", "0", "two"),
    *_out_of_range("global_batch_size", "-2", "5"),
    *_out_of_range("train_iters", "0", "1e6"),
    *_out_of_range("lr", "nan", "inf", "0", "-1", "fast"),
    *_out_of_range("min_lr", "1", "-0.1"),
    *_out_of_range("lr_warmup_iters", "10", "-1"),
    *_out_of_range("lr_warmup_fraction", "1.5"),
    *_out_of_range("weight_decay", "-0.1", "nan"),
    *_out_of_range("adam_beta1", "1"),
    *_out_of_range("adam_beta2", "1.5"),
    *_out_of_range("adam_eps", "0"),
    *_out_of_range("clip_grad", "-1", "inf"),
    *_out_of_range("hidden_dropout", "1", "-0.1"),
    *_out_of_range("attention_dropout", "nan"),
    *_out_of_range("norm_epsilon", "0"),
    *_out_of_range("init_method_std", "0"),
    *_out_of_range("rotary_percent", "0", "2"),
    *_out_of_range("mask_prob", "0", "1.5"),
    *_out_of_range("short_seq_prob", "-1"),
    *_out_of_range("seed", "-1"),
    *_out_of_range("log_interval", "0"),
    *_out_of_range("eval_interval", "0"),
    *_out_of_range("eval_iters", "-1"),
    *_out_of_range("distributed_timeout_minutes", "0"),
    *_out_of_range("make_vocab_size_divisible_by", "0"),
    *_out_of_range("dslm_k", "4", extra="--dslm"),
    *_out_of_range("dslm_input_correlation", "2", extra="--dslm"),
    *_out_of_range("epochs", "-1", program="finetune.py"),
    *_out_of_range("keep_last", "0", program="finetune.py"),
]
_CONTRADICTIONS = [
    BadInput("required flag", ("--lr",), {"lr": None}),
    BadInput("unknown flag", ("--nonsense",), extra="--nonsense"),
    BadInput("unknown scheme", ("--depth-scheme", "nope"), {"depth_scheme": "nope"}),
    BadInput("unknown choice of non-finite", ("--on-non-finite", "ignore"), {"on_non_finite": "ignore"}),
    BadInput("heads", ("--num-attention-heads 5",), {"num_attention_heads": "5"}),
    BadInput(
        "groups",
        ("--num-query-groups 3", "--num-attention-heads 4"),
        {"num_query_groups": "3"},
        "--group-query-attention",
    ),
    BadInput(
        "sum of squares",
        ("--dslm-lambda-sq", "--dslm-beta-sq"),
        {"dslm_lambda_sq": "0.9", "dslm_beta_sq": "0.2"},
        "--dslm",
    ),
    BadInput("k and lambda", ("--dslm-k", "--dslm-lambda-sq"), {"dslm_k": "1", "dslm_lambda_sq": "0.9"}, "--dslm"),
    BadInput("two schemes", ("--dslm", "--depth-scheme xavier"), {"depth_scheme": "xavier"}, "--dslm"),
    BadInput(
        "half of the original's",
        ("--moment-control-sigma", "--moment-control-lambda-beta"),
        extra="--moment-control-sigma",
    ),
    BadInput("k without dslm", ("--dslm-k",), {"dslm_k": "1"}),
    BadInput("std with dslm", ("--init-method-std",), {"init_method_std": "0.01"}, "--dslm"),
    BadInput(
        "two placements", ("--norm-placement",), {"norm_placement": "pre"}, "--apply-residual-connection-post-layernorm"
    ),
    BadInput("two activations", ("--swiglu", "--activation relu"), {"activation": "relu"}, "--swiglu"),
    BadInput(
        "two warm-ups",
        ("--lr-warmup-fraction", "--lr-warmup-iters"),
        {"lr_warmup_iters": "1", "lr_warmup_fraction": "0.1"},
    ),
    BadInput("WSD without its length", ("--lr-wsd-decay-iters",), {"lr_decay_style": "WSD"}),
    BadInput(
        "WSD longer than its course",
        ("--lr-wsd-decay-iters 10", "--lr-warmup-iters 2"),
        {"lr_decay_style": "WSD", "lr_wsd_decay_iters": "10", "lr_warmup_iters": "2"},
    ),
    BadInput(
        "warm-up from above",
        ("--lr-warmup-init 0.1", "--lr 0.001"),
        {"lr_warmup_iters": "2", "lr_warmup_init": "0.1"},
    ),
    BadInput("seed of 40 bits", ("--seed", str(2**40)), {"seed": str(2**40)}),
    BadInput(
        "lowest of a constant rate",
        ("--min-lr", "--lr-decay-style"),
        {"min_lr": "1e-5", "lr_decay_style": "constant"},
    ),
    BadInput(
        "evaluations of nothing", ("--eval-interval 7", "--eval-iters"), {"eval_interval": "7", "eval_iters": "0"}
    ),
    BadInput("override without load", ("--override-opt-param-scheduler needs --load",), extra=_OVERRIDE),
    BadInput("sites without traces", ("--trace-sites", "--trace-interval"), extra="--trace-sites layer"),
    BadInput("traces nowhere", ("--trace-interval", "--trace-dir"), {"trace_interval": "5"}),
    BadInput("theory without traces", ("--trace-theory", "--trace-interval"), extra="--trace-theory"),
    BadInput("unknown site", ("--trace-sites", "nowhere"), extra="--trace-sites nowhere"),
    BadInput("two lengths", ("--train-samples", "--epochs"), {"epochs": "2", "train_samples": "9"}, "", "finetune.py"),
]
_LAYOUTS = [
    BadInput("world size", ("--tensor-model-parallel-size 3", "2 ranks"), {"tensor_model_parallel_size": "3"}, ranks=2),
    BadInput(
        "world size of both",
        ("--tensor-model-parallel-size 2 x --pipeline-model-parallel-size 2", "6 ranks"),
        {"tensor_model_parallel_size": "2", "pipeline_model_parallel_size": "2"},
        ranks=6,
    ),
    BadInput(
        "heads by TP",
        ("--num-attention-heads 1", "--tensor-model-parallel-size 2"),
        {"num_attention_heads": "1", "tensor_model_parallel_size": "2"},
        ranks=2,
    ),
    BadInput(
        "FFN by TP",
        ("--ffn-hidden-size 65", "--tensor-model-parallel-size 2"),
        {"ffn_hidden_size": "65", "tensor_model_parallel_size": "2"},
        ranks=2,
    ),
    BadInput(
        "layers by PP",
        ("--num-layers 5", "--pipeline-model-parallel-size 2"),
        {"num_layers": "5", "pipeline_model_parallel_size": "2"},
        ranks=2,
    ),
    BadInput("SP without TP", ("--sequence-parallel", "--tensor-model-parallel-size"), extra="--sequence-parallel"),
    BadInput(
        "sequence by SP",
        ("--seq-length 33", "--sequence-parallel"),
        {"seq_length": "33", "tensor_model_parallel_size": "2"},
        "--sequence-parallel",
        ranks=2,
    ),
    BadInput("batch by DP", ("--global-batch-size 6", "2 data-parallel"), {"global_batch_size": "6"}, ranks=2),
    BadInput("overlap without optimizer", ("--overlap-param-gather",), extra="--overlap-param-gather"),
    BadInput("recomputation", ("--recompute-method",), {"recompute_granularity": "full"}),
    BadInput(
        "interleaved without PP",
        ("--num-layers-per-virtual-pipeline-stage",),
        {"num_layers_per_virtual_pipeline_stage": "1"},
    ),
    BadInput(
        "interleaved layers",
        ("--num-layers-per-virtual-pipeline-stage 3",),
        {"num_layers_per_virtual_pipeline_stage": "3", "pipeline_model_parallel_size": "2"},
        ranks=2,
    ),
]
_DATA = [
    BadInput("no data", ("--data-path", "--train-data-path"), {"data_path": None}),
    BadInput("two kinds of data", ("--data-path", "--train-data-path"), {"train_data_path": "{site}/tiny"}),
    BadInput("split of two", ("--split", "90,10"), {"split": "90,10"}),
    BadInput("split of none", ("--split 98,1,1", "none of the 2 documents", "validation"), {"split": "98,1,1"}),
    BadInput("split without training", ("--split",), {"split": "0,1,1"}),
    BadInput("missing data", ("--data-path", "absent/prefix.idx"), {"data_path": "absent/prefix"}),
    BadInput("data by its file", ("--data-path", "tiny.bin.idx"), {"data_path": "{site}/tiny.bin"}),
    BadInput("weights for some", ("--data-path", "weight"), {"data_path": "0.5 {site}/tiny 0.5"}),
    BadInput("negative weight", ("--data-path", "weight"), {"data_path": "-1 {site}/tiny"}),
    BadInput("weight 0", ("--data-path", "positive weight"), {"data_path": "0 {site}/tiny 1 {site}/tiny"}),
    BadInput("a prefix twice", ("--data-path", "{site}/tiny twice"), {"data_path": "1 {site}/tiny 2 {site}/tiny"}),
    BadInput("data without .bin", ("--data-path", "tiny.bin"), damage=lambda site: (site / "tiny.bin").unlink()),
    BadInput("empty .bin", ("--data-path", "tiny.bin is empty"), damage=_rewrite("tiny.bin", b"")),
    BadInput("empty .idx", ("--data-path", "tiny.idx is empty"), damage=_rewrite("tiny.idx", b"")),
    BadInput("foreign .idx", ("--data-path", "tiny.idx", "index"), damage=_rewrite("tiny.idx", b"PK but long" * 9)),
    BadInput("short .bin", ("--data-path", "2 bytes", "14"), damage=_rewrite("tiny.bin", b"ab")),
    BadInput("long .bin", ("--data-path", "21 bytes", "14"), damage=_rewrite("tiny.bin", b"a" * 21)),
    BadInput("header of .idx cut", ("--data-path", "tiny.idx", "index"), damage=_cut("tiny.idx", 20)),
    BadInput("lengths of .idx cut", ("--data-path", "tiny.idx", "cut short"), damage=_cut("tiny.idx", 40)),
    BadInput("pointers of .idx cut", ("--data-path", "tiny.idx", "cut short"), damage=_cut("tiny.idx", 60)),
    BadInput("type code of .idx", ("--data-path", "tiny.idx", "damaged"), damage=_patched_index(17, "<B", 77)),
    BadInput("count of .idx", ("--data-path", "tiny.idx", "damaged"), damage=_patched_index(18, "<Q", 2**62)),
    BadInput("pointer of .idx", ("--data-path", "tiny.idx", "damaged"), damage=_patched_index(66, "<q", 2**40)),
    BadInput("negative length", ("--data-path", "tiny.idx", "damaged"), damage=_patched_index(34, "<i", -2)),
    BadInput("no documents", ("--data-path", "no documents"), damage=_data([[5], [6]], [0])),
    BadInput("documents beyond", ("--data-path", "tiny.idx", "damaged"), damage=_data([[5], [6], [7]], [0, 2, 9])),
    BadInput("one sentence a document", ("--data-path", "--split-sentences"), damage=_data([[5, 6], [7]], [0, 1, 2])),
    BadInput(
        "one sentence in validation",
        ("--data-path", "{site}/tiny", "validation", "--split"),
        damage=_data([[5, 6], [7], [8]], [0, 2, 3]),
    ),
    BadInput(
        "long sentences",
        ("--data-path", "train", "above 512", "preprocess_data.py"),
        damage=_data([[5] * 513, [6], [7], [8]], [0, 2, 4]),
    ),
    BadInput(
        "another vocabulary", ("--data-path", "token 99", "--vocab-file"), damage=_data([[5, 99], [6], [7]], [0, 2, 3])
    ),
]
_VOCABULARIES = [
    BadInput("missing vocabulary", ("--vocab-file", "absent.txt"), {"vocab_file": "absent.txt"}),
    BadInput("folder as vocabulary", ("--vocab-file", "{site}"), {"vocab_file": "{site}"}),
    BadInput("empty vocabulary", ("--vocab-file", "empty"), damage=_rewrite("vocab.txt", b"")),
    BadInput("binary vocabulary", ("--vocab-file", "UTF-8"), damage=_rewrite("vocab.txt", b"\xff\xfe\x00")),
    BadInput("duplicates", ("--vocab-file", "'b'", "lines"), damage=_vocabulary(*WORDPIECES, "b")),
    BadInput("blank line", ("--vocab-file", "blank"), damage=_vocabulary(*WORDPIECES[:7], "", "z")),
    BadInput("no mask", ("--vocab-file", "[MASK]"), damage=_vocabulary(*WORDPIECES[:4], "a")),
    BadInput(
        "vocabulary in UTF-16", ("--vocab-file", "UTF-8"), damage=_rewrite("vocab.txt", "[PAD]\n".encode("utf-16"))
    ),
    BadInput(
        "RoBERTa's vocabulary",
        ("--vocab-file", "[PAD]", "<pad>"),
        damage=_vocabulary("<s>", "<pad>", "</s>", "<unk>", "<mask>", "a"),
    ),
    BadInput(
        "tokenizer.json for BERT",
        ("--vocab-file", "tokenizer.json", "vocab.txt"),
        damage=_rewrite("vocab.txt", json.dumps({"model": {"vocab": {"[PAD]": 0}}}, indent=1).encode()),
    ),
    BadInput(
        "tokenizer.json for GPT",
        ("--vocab-file", "not tokenizer.json"),
        {"vocab_file": "{site}/bpe.json", "merge_file": "{site}/vocab.txt"},
        program="pretrain_gpt.py",
        damage=_rewrite("bpe.json", json.dumps({"model": {"vocab": {"a": 0}}}).encode()),
    ),
    BadInput("BPE for BERT", ("--tokenizer-type", "BertWordPieceLowerCase"), {"tokenizer_type": "GPT2BPETokenizer"}),
    BadInput("merges for WordPiece", ("--merge-file",), {"merge_file": "{site}/vocab.txt"}),
    BadInput("BPE without merges", ("--merge-file",), program="pretrain_gpt.py"),
    BadInput(
        "BPE vocabulary that is no JSON",
        ("--vocab-file", "vocab.txt"),
        {"merge_file": "{site}/vocab.txt"},
        program="pretrain_gpt.py",
    ),
    BadInput(
        "BPE vocabulary with a hole",
        ("--vocab-file", "ids"),
        {"vocab_file": "{site}/bpe.json", "merge_file": "{site}/vocab.txt"},
        program="pretrain_gpt.py",
        damage=_rewrite("bpe.json", json.dumps({"a": 0, "b": 2}).encode()),
    ),
]
_RESUME: dict[str, str | None] = {"load": "{site}/saved", "save": "{site}/saved"}
_CHECKPOINTS = [
    BadInput(
        "load one checkpoint",
        ("--load {site}/saved/iter_0000020", "--load {site}/saved"),
        {"load": "{site}/saved/iter_0000020"},
    ),
    BadInput(
        "load a Hugging Face folder",
        ("--load {site}/hf", "--pretrained-checkpoint"),
        {"load": "{site}/hf"},
        damage=_hf_folder("{}"),
    ),
    BadInput("load a file", ("--load", "vocab.txt"), {"load": "{site}/vocab.txt"}),
    BadInput("save into a file", ("--save", "vocab.txt"), {"save": "{site}/vocab.txt/x"}),
    BadInput("save where nothing can be", ("--save /proc/run",), {"save": "/proc/run"}),
    BadInput("save over a run", ("--save", "--load", "{site}/saved"), {"save": "{site}/saved"}),
    BadInput("interval without save", ("--save-interval", "--save"), {"save_interval": "5"}),
    BadInput("keep without save", ("--keep-last", "--save"), {"keep_last": "2"}),
    BadInput("async without save", ("--async-save", "--save"), extra="--async-save"),
    BadInput("board where nothing can be", ("--tensorboard-dir /proc/b",), {"tensorboard_dir": "/proc/b"}),
    BadInput(
        "tensors not copied",
        ("--load", "iter_0000020: its __0_0.distcp is missing", "iter_0000010"),
        _RESUME,
        damage=_in_both(lambda folder: (folder / "__0_0.distcp").unlink()),
    ),
    BadInput(
        "tensors half copied",
        ("--load", "no complete checkpoint", "4 bytes of 10"),
        _RESUME,
        damage=_in_both(lambda folder: os.truncate(folder / "__0_0.distcp", 4)),
    ),
    BadInput(
        "no manifest",
        ("--load", "manifest.json is missing"),
        _RESUME,
        damage=_in_both(lambda folder: (folder / "manifest.json").unlink()),
    ),
    BadInput(
        "half a manifest",
        ("--load", "manifest.json"),
        _RESUME,
        damage=_in_both(lambda folder: os.truncate(folder / "manifest.json", 50)),
    ),
    BadInput(
        "manifest leads out", ("--load", "manifest.json", "../tiny.bin"), _RESUME, damage=_in_both(_renamed_in_manifest)
    ),
    BadInput("tensors are a link", ("--load", "__0_0.distcp", "links"), _RESUME, damage=_in_both(_linked)),
    BadInput(
        "pointer alone",
        ("--load", "latest_checkpointed_iteration.txt", "copied"),
        {"load": "{site}/alone"},
        damage=lambda site: ((site / "alone").mkdir(), _rewrite("alone/latest_checkpointed_iteration.txt", b"5")(site)),
    ),
    BadInput("another width", ("--load", "--hidden-size 32", "saved: 64"), {**_RESUME, "hidden_size": "32"}),
    BadInput("another depth", ("--load", "--num-layers 2", "saved: 4"), {**_RESUME, "num_layers": "2"}),
    BadInput("another scheme", ("--load", "--depth-scheme dslm", "saved: megatron"), _RESUME, "--dslm"),
    BadInput("another activation", ("--load", "--activation relu"), {**_RESUME, "activation": "relu"}),
    BadInput("another rate", ("--lr 0.5", "--override-opt-param-scheduler"), {**_RESUME, "lr": "0.5"}),
    BadInput(
        "a given decay length left out",
        ("--lr-decay-iters 10 (saved: 20)", "--override-opt-param-scheduler"),
        {"load": "{site}/other"},
        damage=_saved(lr_decay_iters=20, lr_decay_is_derived=False),
    ),
    BadInput("another seed", ("--seed 7", "1234"), {**_RESUME, "seed": "7"}),
    BadInput(
        "another optimizer",
        ("--use-distributed-optimizer True (saved: False)",),
        _RESUME,
        "--use-distributed-optimizer",
    ),
    BadInput(
        "another batch",
        ("--global-batch-size 4 (saved: 2)", "--override-settings global-batch-size"),
        {**_RESUME, "global_batch_size": "4"},
    ),
    BadInput(
        "vocabulary of the same size",
        ("--vocab-file", "not the vocabulary"),
        _RESUME,
        damage=_vocabulary(*WORDPIECES[:-1], "z"),
    ),
    BadInput(
        "arguments cut",
        ("--load", "arguments.json", "vocab_size"),
        {"load": "{site}/other"},
        damage=_both(_saved(), lambda site: _forget(site / "other" / "iter_0000007", "vocab_size")),
    ),
    BadInput("no such pretrained", ("--pretrained-checkpoint absent",), {"pretrained_checkpoint": "absent"}),
    BadInput("pretrained of nothing", ("--pretrained-checkpoint", "checkpoint"), {"pretrained_checkpoint": "tests"}),
    BadInput(
        "pretrained GPT",
        ("--pretrained-checkpoint", "GPT"),
        {"pretrained_checkpoint": "{site}/other"},
        damage=_saved(model="gpt"),
    ),
    BadInput(
        "pretrained of another width",
        ("--hidden-size 64", "--pretrained-checkpoint", "32"),
        {"pretrained_checkpoint": "{site}/other"},
        damage=_saved(hidden_size=32),
    ),
    BadInput(
        "config that is no JSON",
        ("--pretrained-checkpoint", "config.json"),
        {"pretrained_checkpoint": "{site}/hf"},
        damage=_hf_folder("{"),
    ),
    BadInput(
        "pickled weights",
        ("--pretrained-checkpoint", "pickled"),
        {"pretrained_checkpoint": "{site}/hf"},
        damage=_hf_folder('{"model_type": "bert"}', "pytorch_model.bin"),
    ),
]
_FINETUNING = [
    BadInput(f"fine-tuning: {name}", named, changes, "", "finetune.py", damage=damage)
    for name, named, changes, damage in (
        ("unknown task", ("--task", "NOPE", "MNLI"), {"task": "NOPE"}, None),
        ("no model", ("--num-layers",), {"num_layers": None}, None),
        ("no data", ("--train-data", "--epochs 0"), {"train_data": None}, None),
        ("missing file", ("--valid-data", "absent.tsv"), {"valid_data": "absent.tsv"}, None),
        ("wrong columns", ("--train-data", "no column sentence1, sentence2", "found id, qid1"), {"task": "MNLI"}, None),
        ("a file for RACE", ("--train-data", "train.tsv", "folder"), {"task": "RACE"}, None),
        ("nothing to do", ("--epochs 0", "--valid-data"), {"epochs": "0", "valid_data": None}, None),
        ("nothing to resume", ("--epochs 0", "--load"), {"epochs": "0", "load": "runs"}, None),
        ("no learning rate", ("--lr",), {"lr": None}, None),
        ("leaving without saving", ("--exit-interval", "--save"), {"exit_interval": "2"}, None),
        ("output into a file", ("--output-dir",), {"output_dir": "{site}/vocab.txt/x"}, None),
        ("batch", ("--global-batch-size 5",), {"global_batch_size": "5"}, None),
        ("save over a run", ("--save", "--load"), {"save": "{site}/saved"}, None),
        (
            "label out of range",
            ("--valid-data", "dev.tsv line 2", "is_duplicate '2'"),
            {},
            _rewrite("dev.tsv", f"{QQP_HEADER}\n0\t0\t0\ta\tb\t2\n".encode()),
        ),
        (
            "no labels",
            ("--valid-data", "no labels", "--test-data"),
            {},
            _rewrite("dev.tsv", b"id\tquestion1\tquestion2\n0\ta\tb\n"),
        ),
        ("empty file", ("--train-data", "train.tsv"), {}, _rewrite("train.tsv", b"")),
    )
]
_TOOLS = [
    BadInput(
        f"{program.removesuffix('.py')}: {name}", named, program=f"tools/{program}", command_line=line, damage=damage
    )
    for program, name, named, line, damage in (
        ("convert_checkpoint.py", "same", ("--from hf --to hf",), "--from hf --to hf --load a --save b", None),
        ("convert_checkpoint.py", "no flag", ("--load",), "--from hf --to megatron --save b", None),
        (
            "convert_checkpoint.py",
            "nothing there",
            ("--load absent",),
            "--from megatron --to hf --load absent --save {site}/out",
            None,
        ),
        (
            "convert_checkpoint.py",
            "something there",
            ("--save {site}/saved",),
            "--from megatron --to hf --load {site}/saved --save {site}/saved",
            None,
        ),
        (
            "convert_checkpoint.py",
            "half a checkpoint",
            ("--load", "__0_0.distcp is missing"),
            "--from megatron --to hf --load {site}/saved --save {site}/out",
            _in_both(lambda folder: (folder / "__0_0.distcp").unlink()),
        ),
        (
            "convert_checkpoint.py",
            "pickled weights",
            ("--load", "pickled"),
            "--from hf --to megatron --load {site}/hf --save {site}/out",
            _hf_folder('{"model_type": "bert"}', "pytorch_model.bin"),
        ),
        (
            "preprocess_data.py",
            "no input",
            ("--input", "none"),
            "--input {site}/none* --tokenizer-type BertWordPieceLowerCase --vocab-file {site}/vocab.txt "
            "--output-prefix {site}/out",
            None,
        ),
        (
            "preprocess_data.py",
            "no JSON",
            ("text.jsonl:1",),
            "--input {site}/text.jsonl --tokenizer-type BertWordPieceLowerCase --vocab-file {site}/vocab.txt "
            "--output-prefix {site}/out --workers 1",
            _rewrite("text.jsonl", b"{broken\n"),
        ),
        (
            "preprocess_data.py",
            "no workers",
            ("--workers",),
            "--input {site}/text.jsonl --tokenizer-type BertWordPieceLowerCase --vocab-file {site}/vocab.txt "
            "--output-prefix {site}/out --workers 0",
            None,
        ),
        (
            "train_vocab.py",
            "too small",
            ("--vocab-size 3",),
            "--input {site}/text.jsonl --tokenizer-type BertWordPieceLowerCase --vocab-size 3 --output-prefix {site}/v",
            None,
        ),
    )
]
BAD_INPUTS = [
    *_RANGES,
    *_CONTRADICTIONS,
    *_LAYOUTS,
    *_DATA,
    *_VOCABULARIES,
    *_CHECKPOINTS,
    *_FINETUNING,
    *_TOOLS,
]


def _forget(folder: Path, name: str) -> None:
    path = folder / "arguments.json"
    content = json.loads(path.read_text())
    del content[name]
    path.write_text(json.dumps(content))
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["arguments.json"]["bytes"] = path.stat().st_size
    (folder / "manifest.json").write_text(json.dumps(manifest))
