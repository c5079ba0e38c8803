"""Pretraining steps beside Hugging Face and plain megatron-core: time, tokens a second, memory, share of the peak.

    python benchmarks/pretrain_throughput.py [--cases bert-256 ...] [--dtypes fp32 bf16] [--peers hf ...] [--quick]

Each comparison starts two processes and lets them take steps in turn, on all cores or the GPU, one rank, dropout 0.1,
random tokens with the frequencies of text: ours as pretrain_bert.py and pretrain_gpt.py take them (--dslm), and
  hf, hf-autocast, hf-bf16   BertForPreTraining and GPT2LMHeadModel with SDPA, clipping, fused AdamW; in fp32, under
                             autocast, in pure bf16
  plain                      megatron-core's own model and operations (on the same CPU runtime, where there is no GPU)
  local                      ours with megatron-core's local layers, beside Transformer Engine's on a GPU
  megatron                   ours with --depth-scheme megatron: what DeepScaleLM costs
  fp32                       ours in fp32, beside ours in bf16
Shares are of the products that the model needs (BERT's head on 15 % of the positions) in what a large product reaches.
Prints progress to standard error and one JSON line last.
"""

import argparse
import multiprocessing
import sys
import time
import warnings
from multiprocessing.connection import Connection
from typing import Any

import torch
from contenders import CONTENDERS, Shape
from report import paired, print_report

from megatron.dslm.distributed.libraries import prepare_libraries
from megatron.dslm.logging.utilization import measured_flops, peak_memory, wait

ON_GPU = torch.cuda.is_available()
SHAPES = {
    "bert-256": Shape("bert", 12, 256, 128, 16, 30522),
    "bert-768": Shape("bert", 12, 768, 512, 4, 30522),
    "gpt-256": Shape("gpt", 12, 256, 256, 8, 50257),
    "bert-large": Shape("bert", 24, 1024, 512, 64, 30522),
    "bert-192": Shape("bert", 192, 1024, 256, 8, 30522),
    "gpt-medium": Shape("gpt", 24, 1024, 1024, 16, 50257),
}
CASES = ("bert-large", "gpt-medium", "bert-192") if ON_GPU else ("bert-256", "bert-768", "gpt-256")
BLOCKS = {"bert-256": 4, "bert-768": 1, "gpt-256": 2, "bert-large": 5, "bert-192": 3, "gpt-medium": 5}
"""Steps of a block."""
PAIRS = {"bert-256": 9, "bert-768": 5}
"""Pairs of a comparison; seven elsewhere."""
PEERS = {"fp32": ("hf", "plain", "megatron"), "bf16": ("hf-autocast", "hf-bf16", "plain", "megatron", "fp32")}
GPU_PEERS = {"bf16": ("hf-autocast", "hf-bf16", "plain", "megatron", "local")}
MASKED = 0.15


def serve(connection: Connection, name: str, shape: Shape, dtype: str) -> None:
    """A contender's process: answers a number of steps with their seconds, and 0 with its peak memory in GiB."""
    warnings.filterwarnings("ignore")
    prepare_libraries()
    step = CONTENDERS[name](shape, dtype)
    while (steps := connection.recv()) is not None:
        if not steps:
            connection.send(peak_memory())
            continue
        start = time.perf_counter()
        for _ in range(steps):
            step()
        wait()
        connection.send((time.perf_counter() - start) / steps)


class Runner:
    """A contender in a process of its own; its first `ask` waits until it is built."""

    def __init__(self, name: str, shape: Shape, dtype: str) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, name, shape, dtype), daemon=True)
        self._process.start()
        theirs.close()

    def ask(self, steps: int) -> float:
        """Seconds a step."""
        self._connection.send(steps)
        return self._connection.recv()

    def close(self) -> float:
        """Ends the process; its peak memory in GiB."""
        peak = self.ask(0)
        self._connection.send(None)
        self._process.join()
        return peak


def compare(case: str, dtype: str, peer: str, pairs: int) -> dict[str, Any]:
    """Ours and a peer in turn."""
    shape = SHAPES[case]
    peak = measured_flops(torch.bfloat16 if dtype == "bf16" else torch.float32, 8192 if ON_GPU else 2048, 20)
    ours = Runner("dslm", shape, dtype)
    theirs = Runner("dslm", shape, "fp32") if peer == "fp32" else Runner(peer, shape, dtype)
    for one in (ours, theirs):
        one.ask(3)  # warms up
    times: tuple[list[float], list[float]] = ([], [])
    for pair in range(pairs):
        for which in (0, 1) if pair % 2 else (1, 0):
            times[which].append((ours, theirs)[which].ask(BLOCKS[case]))
        message = f"{case} {dtype}: {times[0][-1]:.3f} s a step, {peer} {times[1][-1]:.3f}"
        print(message, file=sys.stderr, flush=True)
    result = paired(f"{case} {dtype} beside {peer}", "step_time", *times)
    tokens = shape.seq * shape.batch
    share = products(shape) / (result["ours"] * peak)
    return {
        **result,
        "speedup": round(1 / result["ratio"], 3),
        "tokens_per_second": [round(tokens / result[side]) for side in ("ours", "peer")],
        "peak_memory_gib": [round(one.close(), 2) for one in (ours, theirs)],
        "gemm_peak_gflops": round(peak / 1e9),
        "share_of_gemm_peak": round(share, 3),
    }


def products(shape: Shape) -> float:
    """Floating-point operations of a step's matrix products, forward and backward."""
    width, tokens = shape.hidden, shape.seq * shape.batch
    layer = 24 * width**2 + 4 * shape.seq * width
    vocabulary = 128 * -(-shape.vocab // 128)
    head = 2 * width * vocabulary if shape.model == "gpt" else MASKED * (2 * width * vocabulary + 2 * width**2)
    return 3.0 * tokens * (shape.layers * layer + head)


def main() -> None:
    """Runs the comparisons asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    peers = GPU_PEERS if ON_GPU else PEERS
    parser.add_argument("--cases", nargs="+", choices=SHAPES, default=CASES)
    parser.add_argument("--dtypes", nargs="+", choices=peers, default=list(peers))
    parser.add_argument("--peers", nargs="+", choices=sorted({*CONTENDERS, "fp32"} - {"dslm"}), help="only these")
    parser.add_argument("--quick", action="store_true", help="two pairs of each comparison")
    args = parser.parse_args()
    chosen = [(dtype, peer) for dtype in args.dtypes for peer in args.peers or peers[dtype] if peer in peers[dtype]]
    if not chosen:
        parser.error(f"--peers {' '.join(args.peers)}: not compared with in {' or '.join(args.dtypes)} on this machine")
    results = [
        compare(case, dtype, peer, 2 if args.quick else PAIRS.get(case, 7))
        for case in args.cases
        for dtype, peer in chosen
    ]
    print_report("pretrain_throughput", results)


if __name__ == "__main__":
    main()
