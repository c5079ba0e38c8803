"""BERT's head on the labelled positions alone: the dense head's loss and gradients, for a sixth of its rows."""

import pytest
import torch

from megatron.dslm.models.bert.labelled import labelled
from tests.corpus import data_flags
from tests.distributed.pool import RankPool
from tests.marks import slow_but

SHAPE = ["--num-layers", "4", "--hidden-size", "32", "--num-attention-heads", "4", "--seq-length", "64", "--dslm"]
TRAINING = ["--micro-batch-size", "4", "--global-batch-size", "8", "--train-iters", "5", "--lr", "1e-3"]
TP2, PP2 = ["--tensor-model-parallel-size", "2"], ["--pipeline-model-parallel-size", "2"]
LAYOUTS = {
    "one": (1, []),
    "TP 2": (2, TP2),
    "TP 2 + SP": (2, [*TP2, "--sequence-parallel"]),
    "PP 2": (2, PP2),
    "TP 2 + SP x PP 2": (4, [*TP2, *PP2, "--sequence-parallel"]),
    "DP 2": (2, []),
    "Post-LN, no next sentence": (1, ["--norm-placement", "post", "--bert-no-binary-head"]),
}


@pytest.mark.parametrize("layout", slow_but([one for one in LAYOUTS if one != "TP 2 + SP x PP 2"], LAYOUTS))
def test_loss_and_gradients_are_the_dense_heads(ranks: RankPool, corpus: None, layout: str) -> None:
    world_size, flags = LAYOUTS[layout]
    argv = [*SHAPE, *TRAINING, *data_flags("bert"), *flags]
    worker = "tests.distributed.trainer_workers:dense_and_labelled"
    seen = 0
    for result in ranks.run(world_size, worker, argv=argv):
        (losses, grads, rows), (few_losses, few_grads, few_rows) = result["dense"], result["labelled"]
        assert few_losses == pytest.approx(losses, rel=1e-6)
        largest = max(one.abs().max() for one in grads)
        for one, other in zip(grads, few_grads, strict=True):
            assert (one - other).abs().max() <= 1e-6 * largest
        assert few_rows <= 0.3 * rows, "padding to the fullest part included"
        seen += rows
    assert seen > 0


def test_positions_by_hand() -> None:
    labels = torch.arange(8).view(2, 4)  # two sequences of four
    mask = torch.tensor([[1, 0, 0, 1], [0, 0, 1, 1]])
    whole = labelled(labels, mask, 1, 0)
    assert whole.rows.tolist() == [0, 5, 6, 7], "position x batch size + sequence"
    assert whole.labels.tolist() == [[0, 6, 3, 7]]
    assert whole.weights.tolist() == [1, 1, 1, 1]
    second = labelled(labels, mask, 2, 1)
    assert second.rows.tolist() == [1, 2, 3], "in its own half of the sequence"
    assert second.labels.tolist() == [[0, 0, 0, 6, 3, 7]]
    assert second.weights.tolist() == [1, 0, 0, 1, 1, 1]
    assert labelled(labels, mask * 0, 1, 0).weights.tolist() == [0]
