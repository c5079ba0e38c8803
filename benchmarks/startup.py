"""What a user waits for: the first loss of a run, and --help.

    python benchmarks/startup.py [--quick]

first_loss: seconds from the start of `python pretrain_bert.py` (one rank, BERT 12 x 256, the demo's Wikipedia, sample
indices built already) to the line of the first iteration, whose step is in it; help: of `pretrain_bert.py --help`.
Prints progress to standard error and one JSON line last.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from report import print_report

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "data/wikipedia"
FLAGS = f"""--dslm --num-layers 12 --hidden-size 256 --num-attention-heads 4 --seq-length 128 --micro-batch-size 16
    --train-iters 1 --lr 1e-4 --eval-iters 0 --log-interval 1 --split 90,5,5
    --data-path {DATA}/bert_text_sentence --vocab-file {DATA}/bert-vocab.txt --data-cache-path {DATA}/cache"""


def first_loss() -> float:
    """Seconds to the line that tells the first loss."""
    start = time.perf_counter()
    command = [sys.executable, ROOT / "pretrain_bert.py", *FLAGS.split()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        seconds = next(time.perf_counter() - start for line in process.stdout if "lm loss" in line)
        process.stdout.read()
    return seconds


def help_text() -> float:
    """Seconds of --help."""
    start = time.perf_counter()
    command = [sys.executable, ROOT / "pretrain_bert.py", "--help"]
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True, env={**os.environ, "COLUMNS": "100"})
    return time.perf_counter() - start


def main() -> None:
    """Takes both times again and again."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two runs of each")
    runs = 2 if parser.parse_args().quick else 7
    first_loss()  # builds sample indices
    results: list[dict[str, Any]] = []
    for case, measure in (("first_loss", first_loss), ("help", help_text)):
        seconds = [measure() for _ in range(runs)]
        print(f"{case}: {', '.join(f'{one:.2f}' for one in seconds)} s", file=sys.stderr, flush=True)
        median = round(statistics.median(seconds), 2)
        results.append(
            {"case": case, "metric": "seconds", "ours": median, "most": round(max(seconds), 2), "runs": runs}
        )
    print_report("startup", results)


if __name__ == "__main__":
    main()
