"""A step's floating-point operations by hand, and what a progress line says of the hardware."""

from argparse import Namespace

import pytest
import torch

from megatron.dslm.logging.progress import Progress
from megatron.dslm.logging.utilization import measured_flops, peak_flops, peak_memory, step_flops


def arguments(**other: object) -> Namespace:
    """A GPT of two layers whose products are counted by hand below."""
    shape = {"num_layers": 2, "hidden_size": 8, "num_attention_heads": 4, "kv_channels": 2, "num_query_groups": 4}
    more = {"ffn_hidden_size": 32, "activation": "gelu", "seq_length": 16, "global_batch_size": 3, "model": "gpt"}
    run = {"rank": 0, "world_size": 1, "tensorboard_dir": None, "log_interval": 1, "train_iters": 2, "bf16": False}
    return Namespace(**{**shape, **more, **run, "tokenizer": Namespace(vocab_size=100), **other})


def test_the_products_of_a_step_by_hand() -> None:
    projections, ffn, scores_and_values, head = 4 * 8 * 8, 2 * 8 * 32, 2 * 16 * 8, 8 * 100
    assert step_flops(arguments()) == 6 * (3 * 16) * (2 * (projections + ffn + scores_and_values) + head)
    grouped = arguments(num_query_groups=1, activation="swiglu", model="bert", mask_prob=0.5)
    projections, ffn, head = 2 * 8 * 8 + 2 * 8 * 2, 3 * 8 * 32, 0.5 * (8 * 100 + 8 * 8)
    assert step_flops(grouped) == 6 * (3 * 16) * (2 * (projections + ffn + scores_and_values) + head)


def test_a_product_is_measured_once() -> None:
    assert measured_flops(torch.float32, 256, 2) > 1e8
    state = torch.get_rng_state()
    assert peak_flops(torch.float32) == peak_flops(torch.float32)
    assert torch.equal(torch.get_rng_state(), state), "a run's random numbers do not depend on it"


def test_a_line_says_what_a_step_uses(capsys: pytest.CaptureFixture[str]) -> None:
    args = arguments()
    for flops, expected in ((step_flops(args), "MFU"), (None, "tokens/s | ")):
        progress = Progress(args, 0, flops=flops)
        progress.start()
        progress.step(1, {"lm loss": 1.0}, 1.0, 1e-3)
        line = capsys.readouterr().out
        assert expected in line
        assert f"{peak_memory():.2f} GiB | ETA" in line
        assert ("MFU" in line) == (flops is not None)
