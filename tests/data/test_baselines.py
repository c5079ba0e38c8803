"""Unigram and bigram losses: by hand, on the tokens of each split, and shown where the loss is."""

import json
import math
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest

from megatron.dslm.data.ngrams import PRIOR, Share, bigram_cross_entropy, evenly_spread, unigram_cross_entropy
from tests.corpus import FOLDER, data_flags
from tests.curves import curves_of
from tests.distributed.pool import RankPool
from tests.reliability.site import write_data

SHAPE = ["--num-layers", "2", "--hidden-size", "32", "--num-attention-heads", "2", "--seq-length", "32"]
TRAINING = ["--micro-batch-size", "2", "--train-iters", "2", "--lr", "1e-3", "--eval-iters", "1"]


def share(*tokens: int, weight: float = 1.0) -> Share:
    return Share(np.array(tokens, dtype=np.uint16), weight)


def test_unigrams_by_hand() -> None:
    expected = -(2 * math.log(3 / 7) + math.log(1 / 7)) / 3
    assert unigram_cross_entropy([share(0, 0, 1)], [share(0, 0, 3)], 4) == pytest.approx(expected)


def test_bigrams_by_hand() -> None:
    unigrams = np.array([3, 3]) / 6
    after_0 = (np.array([0, 2]) + PRIOR * unigrams) / (2 + PRIOR)
    after_1 = (np.array([1, 0]) + PRIOR * unigrams) / (1 + PRIOR)
    expected = -(math.log(after_0[1]) + math.log(after_1[1])) / 2
    assert bigram_cross_entropy([share(0, 1, 0, 1)], [share(0, 1, 1)], 2) == pytest.approx(expected)


def test_weights_are_shares_of_the_tokens() -> None:
    text = [share(0, 0, 0, 0, weight=0.25), share(1, 1, weight=0.75)]
    # 6 tokens, of which 1.5 are to be 0 and 4.5 to be 1
    assert unigram_cross_entropy(text, [share(0)], 2) == pytest.approx(-math.log(2.5 / 8))
    assert bigram_cross_entropy(text, [share(1, 1)], 2) < bigram_cross_entropy(text, [share(0, 0)], 2)


def test_a_table_of_pairs_knows_a_text_that_repeats() -> None:
    text = np.tile(np.arange(50), 2000)
    assert bigram_cross_entropy([Share(text, 1.0)], [Share(text[:500], 1.0)], 50) < 0.1
    assert unigram_cross_entropy([Share(text, 1.0)], [Share(text[:500], 1.0)], 50) == pytest.approx(math.log(50))


def test_long_texts_are_counted_in_part() -> None:
    text = np.arange(1_000_000)
    taken = evenly_spread(text, 64_000)
    assert len(taken) == 64_000
    assert (taken[0], taken[-1]) == (0, 999_999)
    assert len(evenly_spread(text, 2_000_000)) == 1_000_000


@pytest.mark.parametrize("model", ["bert", "gpt"])
def test_a_run_shows_them_beside_its_loss(ranks: RankPool, corpus: None, tmp_path: Path, model: str) -> None:
    cache = ["--data-cache-path", f"{tmp_path}/cache"]
    argv = [*SHAPE, *TRAINING, *data_flags(model), *cache, "--tensorboard-dir", f"{tmp_path}/board"]
    call = {"process_group": False, "argv": argv, "model": model}
    code, output = ranks.run(1, "tests.training.pretrain_workers:run", **call)[0]
    assert code == 0, output
    (path,) = (tmp_path / "cache").glob("baselines-*.json")
    found = json.loads(path.read_text())
    assert (found["bigrams"] is None) == (model == "bert")
    assert f"baselines: unigrams {found['unigrams']:.3f}" in output
    name = {"bert": "bert_text_sentence", "gpt": "gpt_text_document"}[model]
    text = np.fromfile(FOLDER / f"{name}.bin", dtype=np.uint16)
    # The split is by documents; all of the text, of which most is training's, has nearly the same entropy.
    counts = np.bincount(text)
    entropy = -(counts[counts > 0] / len(text) * np.log(counts[counts > 0] / len(text))).sum()
    assert found["unigrams"] == pytest.approx(entropy, abs=0.3)
    assert found["train_tokens"] == pytest.approx(0.9 * len(text), rel=0.1)
    lines = {one.name: curves_of(one) for one in (tmp_path / "board").iterdir() if one.is_dir()}
    assert lines.keys() == {"unigrams"} | ({"bigrams"} if model == "gpt" else set())
    for name, drawn in lines.items():
        level = np.float32(found[name])
        assert drawn == {f"{split}/lm loss": {0: level, 2: level} for split in ("training", "validation")}
    # what is not there whole is counted anew
    path.write_text("{}")
    Path(tmp_path / "board").rename(tmp_path / "first")
    assert f"unigrams {found['unigrams']:.3f}" in ranks.run(1, "tests.training.pretrain_workers:run", **call)[0][1]


def test_each_split_counts_its_own_documents(corpus: None, tmp_path: Path) -> None:
    from megatron.dslm.arguments import parse_args
    from megatron.dslm.data.baselines import baselines
    from megatron.dslm.models.bert import model as bert

    documents = [[[5, 5, 5], [5]]] * 8 + [[[6, 6], [6]]] * 2
    sentences = [sentence for document in documents for sentence in document]
    write_data(tmp_path / "text", sentences, list(range(0, 21, 2)))
    data = ["--data-path", f"{tmp_path}/text", "--vocab-file", f"{FOLDER}/bert-vocab.txt", "--split", "80,20,0"]
    args: Namespace = parse_args("bert", [*SHAPE, *TRAINING, *data, "--data-cache-path", str(tmp_path)])
    found = baselines(args, bert.dataset(args), causal=False)
    assert found is not None
    size = args.tokenizer.vocab_size
    assert found.unigrams == pytest.approx(-math.log(1 / (32 + size)))
    assert found.train_tokens == 32
    (kept,) = tmp_path.glob("baselines-*.json")
    kept.unlink()
    kept.mkdir()  # nothing can be kept there: a cache may be for reading alone
    assert baselines(args, bert.dataset(args), causal=False) == found
    args.eval_iters = 0
    assert baselines(args, bert.dataset(args), causal=False) is None
