"""What tracing every layer's output, forward and backward, costs a training step: traced against untraced, in turn.

    python benchmarks/trace_overhead.py [--quick] [--cases every_step]

The path of a traced run: hooks, collectives, trace.jsonl, TensorBoard's scalars. Its pictures, held to 0.5 % of the
time, are drawn in the step before each timed block. BERT 12 x 256, sequence 128, batch 16, dropout 0.1, fp32, real
text, one rank.
every_step: three traced steps beside three untraced ones, again and again; every_10: ten, one of which is traced,
beside ten.
Prints progress to standard error and one JSON line last.
"""

import dslm_patches.cpu

dslm_patches.cpu.install()  # before megatron-core is imported

# isort: split
import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

from megatron.core.utils import unwrap_model
from report import paired, print_report

from dslm_patches.schemes import build_scheme
from megatron.dslm.arguments import parse_args
from megatron.dslm.data.batches import batch_iterator
from megatron.dslm.data.datasets import build_datasets
from megatron.dslm.distributed.initialize import initialize, shut_down
from megatron.dslm.distributed.libraries import prepare_libraries
from megatron.dslm.logging.progress import Progress
from megatron.dslm.models.bert import model as bert
from megatron.dslm.models.build import build_chunks, wrap_chunks
from megatron.dslm.models.shape import shape_from_flags
from megatron.dslm.optimizer.build import build_optimizer, build_scheduler
from megatron.dslm.training.step import Trainer
from megatron.dslm.training.traced_steps import TracedSteps

CASES = {"every_step": (1, 3, 40), "every_10": (10, 10, 15)}
"""Interval of the traces, steps in a block, pairs of blocks; short blocks, as a machine's speed wanders."""
FLAGS = """--dslm --num-layers 12 --hidden-size 256 --num-attention-heads 4 --seq-length 128 --micro-batch-size 16
    --train-iters 100000 --lr 1e-4 --eval-iters 0 --log-interval 10 --trace-theory --split 90,5,5
    --data-path data/wikipedia/bert_text_sentence --vocab-file data/wikipedia/bert-vocab.txt
    --data-cache-path data/wikipedia/cache"""


class Run:
    """A trainer, and blocks of its steps."""

    def __init__(self, folder: str) -> None:
        self.args = parse_args("bert", [*FLAGS.split(), "--trace-dir", folder, "--tensorboard-dir", folder])
        initialize(self.args)
        data = build_datasets(self.args, bert.dataset(self.args))[0]
        chunks, self.scheme = build_chunks(self.args, bert.provide_model)
        chunks = wrap_chunks(self.args, chunks)
        optimizer = build_optimizer(self.args, chunks)
        self.trainer = Trainer(self.args, chunks, bert.forward_step, optimizer, build_scheduler(self.args, optimizer))
        self.iterators: list[Iterator[Any]] = [batch_iterator(self.args, data, 0)]
        self.progress = Progress(self.args, 0)
        assert self.scheme == build_scheme("dslm", shape_from_flags(self.args, self.args.tokenizer.vocab_size))
        self.iteration = 1  # the first iteration is traced at any interval

    def block(self, steps: int, traces: TracedSteps | None = None) -> float:
        """Seconds of so many steps, each."""
        start = time.perf_counter()
        for _ in range(steps):
            self.iteration += 1
            now = traces if traces is not None and traces.start(self.iteration) else None
            self.trainer.step(self.iterators, now.gradients_ready if now else None)
            if now:
                now.finish()
        return (time.perf_counter() - start) / steps

    def traced_block(self, steps: int, interval: int) -> float:
        """The same with hooks on, and a trace at every `interval`; opening the files is not counted."""
        self.args.trace_interval = interval
        traces = TracedSteps(self.args, self.trainer.chunks, self.scheme, self.progress, self.iteration)
        # As in a long run: files are open and the prediction, made once, is there.
        self.iteration = -(-self.iteration // interval) * interval
        traces.start(self.iteration)
        self.trainer.step(self.iterators, traces.gradients_ready)
        traces.finish()
        seconds = self.block(steps, traces)
        traces.remove()
        return seconds


def main() -> None:
    """Runs both cases."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two pairs of each case: under a minute")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    asked = parser.parse_args()
    prepare_libraries()
    with tempfile.TemporaryDirectory() as folder:
        run = Run(folder)
        assert not unwrap_model(run.trainer.chunks[0]).encoder.layers[0]._forward_hooks
        run.block(10)
        results = []
        for case in asked.cases:
            interval, steps, pairs = CASES[case]
            traced, untraced = [], []
            for _ in range(2 if asked.quick else pairs):
                traced.append(run.traced_block(steps, interval))
                untraced.append(run.block(steps))
                message = f"{case}: {traced[-1]:.4f} s a step traced, {untraced[-1]:.4f} s untraced"
                print(message, file=sys.stderr, flush=True)
            results.append(paired(case, "step_time", traced, untraced))
        run.progress.close()
    print_report("trace_overhead", results)
    shut_down()


if __name__ == "__main__":
    main()
