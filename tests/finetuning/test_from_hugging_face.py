"""Fine-tuning from Hugging Face folders: a stock BERT, whatever the layout."""

from pathlib import Path

import pytest
from transformers import BertConfig, BertModel

from tests.corpus import FOLDER
from tests.curves import curves
from tests.distributed.pool import RankPool
from tests.finetuning.task_files import write_qqp
from tests.finetuning.test_finetune import LAYOUTS, NO_DROPOUT, SMALL, run


@pytest.fixture
def stock(corpus: None, tmp_path: Path) -> Path:
    """A random stock BERT with the corpus' vocabulary."""
    shape = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 64}
    folder = tmp_path / "stock"
    BertModel(BertConfig(vocab_size=4096, max_position_embeddings=64, **shape)).save_pretrained(folder)
    (folder / "vocab.txt").write_text((FOLDER / "bert-vocab.txt").read_text())
    return folder


@pytest.mark.slow
def test_a_stock_bert_fine_tunes_in_every_layout(ranks: RankPool, stock: Path, tmp_path: Path) -> None:
    train = write_qqp(tmp_path / "train.tsv", 40)
    # The folder has the vocabulary.
    own = [word for word in SMALL if word not in ("--vocab-file", f"{FOLDER}/bert-vocab.txt")]
    argv = ["--task", "QQP", "--pretrained-checkpoint", str(stock), *own, *NO_DROPOUT, "--epochs", "1"]
    argv += ["--train-data", train, "--valid-data", train, "--trace-interval", "0"]
    seen = {}
    for name in ("TP 1", "TP 2", "PP 2"):
        world_size, layout = LAYOUTS[name]
        output = run(ranks, world_size, [*argv, *layout, "--tensorboard-dir", str(tmp_path / name / "board")])
        assert "drawn anew: classification_head.bias, classification_head.weight\n" in output
        drawn = curves(tmp_path / name)
        seen[name] = [*drawn["training/loss"].values(), drawn["train/loss"][5]]
    assert seen["TP 2"] == pytest.approx(seen["TP 1"], rel=1e-5)
    assert seen["PP 2"] == pytest.approx(seen["TP 1"], rel=1e-5)


def test_pickled_weights_are_refused(ranks: RankPool, stock: Path, tmp_path: Path) -> None:
    (stock / "model.safetensors").rename(stock / "pytorch_model.bin")
    train = write_qqp(tmp_path / "train.tsv", 40)
    argv = ["--task", "QQP", "--pretrained-checkpoint", str(stock), *SMALL, "--train-data", train]
    worker = "tests.finetuning.finetune_workers:run"
    code, output = ranks.run(1, worker, process_group=False, argv=argv)[-1]
    assert code == 2
    assert "--pretrained-checkpoint" in output.splitlines()[-1]
    assert "safetensors" in output.splitlines()[-1]
