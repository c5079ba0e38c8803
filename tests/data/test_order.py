"""The order of the data does not depend on how long a run is; epochs are whole; an index belongs to its content."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from megatron.dslm.arguments import parse_args
from tests.corpus import FOLDER, data_flags
from tests.data.order_workers import write_documents
from tests.distributed.pool import RankPool

SHAPE = ["--num-layers", "1", "--hidden-size", "8", "--num-attention-heads", "1", "--micro-batch-size", "2"]
GPT = ["--vocab-file", f"{FOLDER}/gpt-vocab.json", "--merge-file", f"{FOLDER}/gpt-merges.txt"]
BERT = ["--vocab-file", f"{FOLDER}/bert-vocab.txt", "--split", "1,0,0"]


def flags(seq_length: int, *extra: str, train_iters: int = 3, eval_iters: int = 0) -> list[str]:
    """Flags of a run that is not trained."""
    length = ["--seq-length", str(seq_length), "--train-iters", str(train_iters), "--eval-iters", str(eval_iters)]
    return [*SHAPE, *length, "--lr", "1e-3", *extra]


def look(ranks: RankPool, function: str, **arguments: Any) -> Any:
    """What a worker of this folder returns on one rank."""
    return ranks.run(1, f"tests.data.order_workers:{function}", **arguments)[0]


@pytest.mark.parametrize("model", ["bert", "gpt"])
@pytest.mark.parametrize("split", [0, 1, 2])
def test_the_order_does_not_depend_on_the_length_of_the_run(
    ranks: RankPool, corpus: None, model: str, split: int
) -> None:
    seen = []
    for train_iters, eval_iters in ((3, 1), (500, 7), (2000, 40)):
        argv = flags(32, *data_flags(model), train_iters=train_iters, eval_iters=eval_iters)
        seen.append(look(ranks, "samples", argv=argv, model=model, count=24, split=split))
    assert seen[0] == seen[1] == seen[2]
    assert len(set(seen[0][1])) == 24, "all different"


def numbered(folder: Path, name: str, tokens: range, documents: int = 7) -> str:
    """Documents of unequal length in which each token of the range stands once."""
    cuts = sorted(np.random.RandomState(1).choice(np.arange(1, len(tokens)), documents - 1, replace=False).tolist())
    parts = [tokens[begin:end] for begin, end in itertools.pairwise([0, *cuts, len(tokens)])]
    return write_documents(folder / name, [[list(part)] for part in parts])


def test_each_token_is_learned_once_an_epoch_after_a_longer_resume(
    ranks: RankPool, corpus: None, tmp_path: Path
) -> None:
    """A run to iteration 40, and its continuation with --train-iters 99, 2 samples a step."""
    argv = [*GPT, "--split", "1,0,0", "--data-path", numbered(tmp_path, "a", range(1000))]
    epoch, first = look(ranks, "labels", argv=flags(16, *argv, train_iters=40), model="gpt", first=0, count=80)
    _, second = look(ranks, "labels", argv=flags(16, *argv, train_iters=99), model="gpt", first=80, count=118)
    assert epoch == 63, "62 whole sequences of 16, and 7 labels more"
    run = first + second
    orders = []
    for begin in range(0, 3 * epoch, epoch):
        learned = sorted(token for sample in run[begin : begin + epoch] for token in sample)
        assert len(learned) == len(set(learned)) == 999, "all but the first token of the first document"
        orders.append([tuple(sample) for sample in run[begin : begin + epoch]])
    assert sorted(orders[0]) == sorted(orders[1]) == sorted(orders[2])
    assert orders[0] != orders[1] != orders[2] != orders[0]


def test_berts_epochs_take_each_sentence_once_and_mask_anew(ranks: RankPool, corpus: None, tmp_path: Path) -> None:
    rng = np.random.RandomState(0)
    documents = [[rng.randint(5, 4000, rng.randint(4, 12)).tolist() for _ in range(6)] for _ in range(9)]
    argv = flags(32, *BERT, "--data-path", write_documents(tmp_path / "a", documents))
    epoch, taken = look(ranks, "rows", argv=argv, first=0, count=0)
    _, taken = look(ranks, "rows", argv=argv, first=0, count=2 * epoch)
    for part in (taken[:epoch], taken[epoch:]):
        assert sorted(sentence for begin, end in part for sentence in range(begin, end)) == list(range(54))
    assert taken[:epoch] != taken[epoch:]
    _, masked = look(ranks, "samples", argv=argv, model="bert", count=2 * epoch)
    assert not set(masked[:epoch]) & set(masked[epoch:])


def tokens_of(blend: list[list[int]], data: dict[str, range]) -> list[str]:
    """From which data set each sample is."""
    return [next(name for name, tokens in data.items() if sample[0] in tokens) for sample in blend]


def test_several_prefixes_are_one_data_set(ranks: RankPool, corpus: None, tmp_path: Path) -> None:
    data = {"a": range(0, 330), "b": range(400, 500)}
    prefixes = [numbered(tmp_path, name, tokens, 3) for name, tokens in data.items()]
    argv = flags(16, *GPT, "--split", "1,0,0", "--data-path", *prefixes)
    epoch, learned = look(ranks, "labels", argv=argv, model="gpt", first=0, count=4 * 28)
    assert epoch == 21 + 7
    for begin in range(0, 4 * epoch, epoch):
        part = learned[begin : begin + epoch]
        assert len({token for sample in part for token in sample}) == 330 + 100 - 2
        assert "b" in tokens_of(part, data)[:6], "mixed, not one after the other"


def test_weights_hold_over_any_number_of_epochs(ranks: RankPool, corpus: None, tmp_path: Path) -> None:
    data = {"a": range(0, 330), "b": range(400, 500)}
    a, b = (numbered(tmp_path, name, tokens, 3) for name, tokens in data.items())
    argv = flags(16, *GPT, "--split", "1,0,0", "--data-path", "1", a, "3", b)
    _, learned = look(ranks, "labels", argv=argv, model="gpt", first=0, count=400)
    names = tokens_of(learned, data)
    assert names.count("a") == 100
    of_b = [sample for sample, name in zip(learned, names, strict=True) if name == "b"]
    assert sorted(of_b[:7]) == sorted(of_b[7:14]) == sorted(of_b[287:294])


def test_a_weight_too_small_to_hold_is_refused(
    corpus: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = (numbered(tmp_path, name, range(330), 3) for name in "ab")
    with pytest.raises(SystemExit):
        parse_args("gpt", flags(16, *GPT, "--split", "1,0,0", "--data-path", "1e-7", a, "1", b))
    assert "--data-path: a weight of 1e-7 is less than one sample in 1,048,576" in capsys.readouterr().err


@pytest.mark.parametrize("model", ["bert", pytest.param("gpt", marks=pytest.mark.slow)])
def test_data_made_anew_under_a_prefix_get_their_own_index(
    ranks: RankPool, corpus: None, tmp_path: Path, model: str
) -> None:
    """Fewer documents, then more, then other text of the same lengths: each as if it were the only one."""
    rng = np.random.RandomState(0)
    vocabulary = BERT if model == "bert" else [*GPT, "--split", "1,0,0"]
    for size, shift in ((60, 0), (12, 0), (90, 0), (90, 1)):
        documents = [[(rng.randint(5, 900, 8) + shift).tolist() for _ in range(4)] for _ in range(size)]
        seen = []
        for folder in (tmp_path / "same", tmp_path / f"fresh-{size}-{shift}"):
            folder.mkdir(exist_ok=True)
            argv = flags(32, *vocabulary, "--data-path", write_documents(folder / "data", documents))
            seen.append(look(ranks, "samples", argv=argv, model=model, count=40))
        assert seen[0] == seen[1]
