"""tools/preprocess_data.py on real text, sentence splitting on: speed beside a straightforward pipeline, and memory.

    python benchmarks/preprocess.py [--quick]

Both ways run as programs, with a worker a core, start-up included, on data/prose/prose.jsonl
(`bash scripts/prepare_finetune_data.sh`: 21 MB of books), in turn; their outputs must have the same SHA-256.
  naive           naive_preprocess.py: NLTK's Punkt, one document at a time, WordPiece in Python
  throughput      ours on 100 MB of it, by WordPiece with sentences and by GPT-2's BPE with documents
  peak_memory     the whole process tree's, on 2 GB beside 100 MB (the text again and again)
Prints progress to standard error and one JSON line last.
"""

import argparse
import hashlib
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
from report import paired, print_report

ROOT = Path(__file__).resolve().parent.parent
TEXT, VOCAB = ROOT / "data/prose/prose.jsonl", ROOT / "data/prose/bert-vocab.txt"
GPT = ROOT / "data/wikipedia/gpt"
WORKERS = psutil.cpu_count()
PREPROCESS = [sys.executable, ROOT / "tools/preprocess_data.py", "--workers", WORKERS]
SENTENCES = ["--split-sentences", "--tokenizer-type", "BertWordPieceLowerCase", "--vocab-file", VOCAB]
DOCUMENTS = ["--append-eod", "--tokenizer-type", "GPT2BPETokenizer", "--vocab-file", f"{GPT}-vocab.json"]
DOCUMENTS += ["--merge-file", f"{GPT}-merges.txt"]


def run(command: list[Any]) -> float:
    """Seconds a program takes."""
    start = time.perf_counter()
    subprocess.run(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


def memory(command: list[Any]) -> float:
    """Peak memory of a program's processes together, in MB, looked at twice a second."""
    peak = 0.0
    process = psutil.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None:
        peak = max(peak, sum(map(_memory, [process, *_children(process)])))
        time.sleep(0.5)
    assert process.wait() == 0, command
    return peak / 1e6


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _memory(process: psutil.Process) -> float:
    try:
        return process.memory_full_info().uss
    except psutil.NoSuchProcess:
        return 0.0


def ours(source: Path, prefix: Path, flags: list[Any]) -> list[Any]:
    return [*PREPROCESS, "--input", source, "--output-prefix", prefix, *flags]


def naive(source: Path, prefix: Path) -> list[Any]:
    return [sys.executable, ROOT / "benchmarks/naive_preprocess.py", source, VOCAB, prefix, WORKERS]


def digest(prefix: Path) -> str:
    both = [Path(f"{prefix}_text_sentence.{suffix}").read_bytes() for suffix in ("bin", "idx")]
    return hashlib.sha256(b"".join(both)).hexdigest()


def repeated(path: Path, megabytes: float) -> Path:
    """The text again and again."""
    text = TEXT.read_bytes()
    with open(path, "wb") as file:
        for _ in range(round(megabytes * 1e6 / len(text))):
            file.write(text)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one pair, and 200 MB in place of 2 GB")
    quick = parser.parse_args().quick
    if missing := [str(one) for one in (TEXT, VOCAB, Path(f"{GPT}-vocab.json")) if not one.exists()]:
        parser.error(f"{missing[0]} is missing: run scripts/prepare_finetune_data.sh and scripts/prepare_demo_data.sh")
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        where = Path(folder)
        megabytes = TEXT.stat().st_size / 1e6
        rates: tuple[list[float], list[float]] = ([], [])
        for _ in range(1 if quick else 5):
            rates[0].append(megabytes / run(ours(TEXT, where / "ours", SENTENCES)))
            rates[1].append(megabytes / run(naive(TEXT, where / "naive")))
            assert digest(where / "ours") == digest(where / "naive"), "the outputs differ"
            print(f"ours {rates[0][-1]:.2f} MB/s, naive {rates[1][-1]:.2f}; same SHA-256", file=sys.stderr, flush=True)
        results.append({**paired("prose sentences", "mb_per_s", *rates), "sha256": digest(where / "ours")})
        hundred = repeated(where / "100.jsonl", 100)
        for name, flags in (("sentences", SENTENCES), ("documents", DOCUMENTS)):
            runs = [run(ours(hundred, where / "out", flags)) for _ in range(1 if quick else 3)]
            speeds = sorted(hundred.stat().st_size / 1e6 / seconds for seconds in runs)
            results.append({"case": f"100 MB {name}", "metric": "mb_per_s", "ours": round(speeds[len(speeds) // 2], 2)})
            print(results[-1], file=sys.stderr, flush=True)
        large = repeated(where / "large.jsonl", 200 if quick else 2000)
        of_small, of_large = (memory(ours(path, where / "out", SENTENCES)) for path in (hundred, large))
        size = f"{large.stat().st_size / 1e6:.0f} MB beside {hundred.stat().st_size / 1e6:.0f} MB"
        results.append(paired(size, "peak_memory_mb", [of_large], [of_small], 2))
    print_report("preprocess", results)


if __name__ == "__main__":
    main()
