"""How much of the hardware a step uses: model FLOPs utilisation (MFU) and peak memory."""

import functools
import resource
import time
from argparse import Namespace

import torch

from dslm_patches.theory.ffn import FFN_ACTIVATIONS
from megatron.dslm.models.family import family

_CARDS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "A6000": 155e12, "V100": 125e12}
"""Dense 16-bit products a second of NVIDIA's data sheets, by what a card's name holds; H100 is the SXM card."""


def step_flops(args: Namespace) -> float:
    """Floating-point operations of the matrix products of a pretraining step, forward and backward.

    Two a weight and token forward, twice that backward (PaLM, arXiv 2204.02311, appendix B); attention over the whole
    sequence also where it is causal; BERT's head on the tokens that are predicted. Recomputed ones do not count.
    """
    width, queries = args.hidden_size, args.num_attention_heads * args.kv_channels
    keys = args.num_query_groups * args.kv_channels
    gated = FFN_ACTIVATIONS[args.activation].gated
    attention = width * (2 * queries + 2 * keys) + 2 * args.seq_length * queries
    layer = attention + (3 if gated else 2) * width * args.ffn_hidden_size
    head = family(args.model).head_products(args)
    tokens = args.global_batch_size * args.seq_length
    return 6.0 * tokens * (args.num_layers * layer + head)


@functools.cache
def peak_flops(dtype: torch.dtype) -> float:
    """Floating-point operations a second of this rank's device: a known card's in 16 bits, else as measured."""
    if torch.cuda.is_available() and dtype is not torch.float32:
        name = torch.cuda.get_device_name()
        known = [rate for card, rate in _CARDS.items() if card in name]
        if known:
            return known[0]
    return measured_flops(dtype, 8192 if torch.cuda.is_available() else 1024, 4)


def measured_flops(dtype: torch.dtype, size: int, times: int) -> float:
    """Floating-point operations a second of torch's product of two square matrices, the best of some times.

    Leaves no trace in the device's memory, nor in the peak that `peak_memory` gives.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    one, other = (torch.ones(size, size, dtype=dtype, device=device) for _ in range(2))
    best = float("inf")
    for _ in range(times):
        wait()
        begun = time.perf_counter()
        one @ other
        wait()
        best = min(best, time.perf_counter() - begun)
    del one, other
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    return 2 * size**3 / best


def peak_memory() -> float:
    """The most memory that this rank held so far, in GiB: of the GPU where there is one, else of the process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def wait() -> None:
    """Until the GPU has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
