"""The real text the tests train on: the demo's slice of English Wikipedia, prepared by the demo's own script."""

import fcntl
import os
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "data" / "wikipedia"
LAST_OF_EACH = (
    "wikipedia.jsonl",
    "bert_text_sentence.idx",
    "pieces_text_sentence.idx",
    "gpt_text_document.idx",
    "characters_text_document.idx",
)
"""What scripts/prepare_demo_data.sh writes last of each corpus."""


def prepare() -> None:
    """Downloads and preprocesses what is not there yet, while other processes of the tests wait."""
    with open(Path(tempfile.gettempdir()) / f"dslm-corpus-{os.getuid()}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if all((FOLDER / name).is_file() for name in LAST_OF_EACH):
            return  # also on a machine with the data and an environment of its own
        subprocess.run(["bash", str(ROOT / "scripts" / "prepare_demo_data.sh")], check=True)


def data_flags(model: str) -> list[str]:
    """The flags that name data and vocabulary for "bert" or "gpt"."""
    flags = ["--split", "90,5,5", "--data-cache-path", str(FOLDER / "cache")]
    if model == "bert":
        return [*flags, "--data-path", f"{FOLDER}/bert_text_sentence", "--vocab-file", f"{FOLDER}/bert-vocab.txt"]
    return [
        *flags,
        *("--data-path", f"{FOLDER}/gpt_text_document"),
        *("--vocab-file", f"{FOLDER}/gpt-vocab.json", "--merge-file", f"{FOLDER}/gpt-merges.txt"),
    ]
