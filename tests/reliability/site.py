"""A folder with everything a small run reads, made by hand in a moment: data, vocabularies, task files, checkpoints."""

import json
import struct
from pathlib import Path

from megatron.dslm.arguments import parse_args
from megatron.dslm.checkpoints.folder import TRACKER, iteration_folder
from megatron.dslm.checkpoints.manifest import write_manifest
from megatron.dslm.checkpoints.saved_arguments import write_arguments

WORDPIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefgh"]
QQP_HEADER = "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate"


def write_data(prefix: Path, sentences: list[list[int]], documents: list[int]) -> None:
    """Megatron's .bin/.idx by hand: uint16 tokens."""
    lengths = [len(sentence) for sentence in sentences]
    pointers = [2 * sum(lengths[:i]) for i in range(len(lengths))]
    header = b"MMIDIDX\x00\x00" + struct.pack("<QBQQ", 1, 8, len(lengths), len(documents))
    body = struct.pack(f"<{len(lengths)}i{len(lengths)}q{len(documents)}q", *lengths, *pointers, *documents)
    prefix.with_suffix(".idx").write_bytes(header + body)
    tokens = [token for sentence in sentences for token in sentence]
    prefix.with_suffix(".bin").write_bytes(struct.pack(f"<{len(tokens)}H", *tokens))


def pretraining_flags(site: Path) -> dict[str, str | None]:
    """Flags of a pretraining command that works."""
    return {
        "num_layers": "4",
        "hidden_size": "64",
        "num_attention_heads": "4",
        "seq_length": "32",
        "micro_batch_size": "2",
        "train_iters": "10",
        "lr": "1e-3",
        "data_path": f"{site}/tiny",
        "vocab_file": f"{site}/vocab.txt",
        "split": "1,1,0",
    }


def finetuning_flags(site: Path) -> dict[str, str | None]:
    """Flags of a fine-tuning command that works."""
    return {
        "task": "QQP",
        "train_data": f"{site}/train.tsv",
        "valid_data": f"{site}/dev.tsv",
        "vocab_file": f"{site}/vocab.txt",
        "num_layers": "4",
        "hidden_size": "64",
        "num_attention_heads": "4",
        "seq_length": "32",
        "micro_batch_size": "4",
        "lr": "1e-4",
    }


def words(flags: dict[str, str | None]) -> list[str]:
    """Flags by argument name as a command line; None leaves one out, spaces separate several values."""
    line = []
    for name, value in flags.items():
        if value is not None:
            line += [
                "--" + name.replace("_", "-"),
                *(value.split() if name.endswith(("data_path", "_data")) else [value]),
            ]
    return line


def make_site(folder: Path) -> None:
    """Fills a folder."""
    (folder / "vocab.txt").write_text("\n".join(WORDPIECES) + "\n")
    write_data(folder / "tiny", sentences=[[5, 6], [7, 8], [9, 10], [11]], documents=[0, 2, 4])
    rows = "".join(f"{number}\t0\t0\ta b\tb c\t{number % 2}\n" for number in range(10))
    for name in ("train", "dev"):
        (folder / f"{name}.tsv").write_text(f"{QQP_HEADER}\n{rows}")
    (folder / "text.jsonl").write_text('{"text": "a b c. d e."}\n')
    for number in (10, 20):
        fake_checkpoint(folder, folder / "saved", number)


def fake_checkpoint(site: Path, root: Path, iteration: int, **changes: object) -> Path:
    """What is a whole checkpoint of the command of `pretraining_flags` to whoever reads no tensors."""
    folder = Path(iteration_folder(str(root), iteration))
    folder.mkdir(parents=True)
    args = parse_args("bert", words(pretraining_flags(site)))
    write_arguments(str(folder), args, iteration)
    if changes:
        path = folder / "arguments.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    (folder / "metadata.json").write_text("{}")
    (folder / "__0_0.distcp").write_bytes(b"no tensors")
    write_manifest(str(folder), {})
    (root / TRACKER).write_text(str(iteration))
    return folder
