"""Fine-tuning runs: the same from any layout to any layout, resumed exactly, judged rightly."""

import itertools
import json
import shutil
from pathlib import Path

import pytest
from sklearn.metrics import accuracy_score, f1_score

from megatron.dslm.data.batches import MicroBatchSampler
from tests.corpus import data_flags
from tests.curves import curves
from tests.distributed.pool import RankPool
from tests.finetuning.finetune_workers import losses
from tests.finetuning.task_files import VOCABULARY, write_qqp, write_race

WORKER = "tests.finetuning.finetune_workers:run"
TP2 = ["--tensor-model-parallel-size", "2"]
PP2 = ["--pipeline-model-parallel-size", "2"]
NO_DROPOUT = ["--hidden-dropout", "0", "--attention-dropout", "0"]
SMALL = ["--micro-batch-size", "4", "--global-batch-size", "8", "--lr", "1e-3", "--log-interval", "1", *VOCABULARY]
SCRATCH = ["--num-layers", "4", "--hidden-size", "32", "--num-attention-heads", "4", "--seq-length", "64", "--dslm"]
LAYOUTS = {
    "TP 1": (1, []),
    "TP 2": (2, TP2),
    "TP 2 + SP": (2, [*TP2, "--sequence-parallel"]),
    "PP 2": (2, PP2),
    "PP 2 interleaved": (2, [*PP2, "--num-layers-per-virtual-pipeline-stage", "1"]),
    "TP 2 x PP 2": (4, [*TP2, *PP2]),
    "DP 2": (2, ["--use-distributed-optimizer"]),
}


def run(ranks: RankPool, world_size: int, argv: list[str]) -> str:
    """Output of the last rank of a run that succeeds."""
    code, output = ranks.run(world_size, WORKER, process_group=False, argv=argv)[-1]
    assert code == 0, output
    return output


@pytest.fixture(scope="module")
def pretrained(ranks: RankPool, corpus: None, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A BERT pretrained for two steps at TP 2."""
    folder = tmp_path_factory.mktemp("pretrained")
    argv = [*SCRATCH, *TP2, "--micro-batch-size", "4", "--train-iters", "2", "--lr", "1e-3", "--eval-iters", "0"]
    worker = "tests.training.pretrain_workers:run"
    argv += [*data_flags("bert"), "--save", str(folder)]
    assert ranks.run(2, worker, process_group=False, argv=argv, model="bert")[-1][0] == 0
    return str(folder)


@pytest.mark.slow
@pytest.mark.parametrize("task", ["QQP", "RACE"])
def test_every_layout_gives_the_same_losses(ranks: RankPool, pretrained: str, tmp_path: Path, task: str) -> None:
    if task == "QQP":
        train, valid = write_qqp(tmp_path / "train.tsv", 40), write_qqp(tmp_path / "dev.tsv", 17)
    else:
        train, valid = write_race(tmp_path / "train", 40), write_race(tmp_path / "dev", 17)
    argv = ["--task", task, "--pretrained-checkpoint", pretrained, *SMALL, *NO_DROPOUT, "--epochs", "1"]
    argv += ["--train-data", train, "--valid-data", valid]
    seen = {}
    for name, (world_size, layout) in LAYOUTS.items():
        folder = tmp_path / name
        places = ["--output-dir", str(folder), "--tensorboard-dir", str(folder / "board"), "--trace-interval", "0"]
        output = run(ranks, world_size, [*argv, *layout, *places])
        assert "drawn anew: classification_head.weight, classification_head.bias" in output
        drawn = curves(folder)
        seen[name] = [*drawn["training/loss"].values(), drawn["dev/loss"][5]]
        predictions = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
        assert len(predictions) == 17
    assert len(seen["TP 1"]) == 5 + 1
    for name, values in seen.items():
        assert values == pytest.approx(seen["TP 1"], rel=1e-5), name


def test_a_resumed_run_equals_an_uninterrupted_one(ranks: RankPool, pretrained: str, tmp_path: Path) -> None:
    train, valid = write_qqp(tmp_path / "train.tsv", 40), write_qqp(tmp_path / "dev.tsv", 21)
    argv = ["--task", "QQP", "--pretrained-checkpoint", pretrained, *SMALL, "--epochs", "2", "--group-by-length"]
    argv += ["--train-data", train, "--valid-data", valid, "--test-data", valid, "--save-interval", "3"]

    def places(name: str) -> list[str]:
        return ["--save", str(tmp_path / name), "--load", str(tmp_path / name)]

    straight = run(ranks, 2, [*argv, *places("straight")])
    broken = run(ranks, 2, [*argv, *places("broken"), "--exit-interval", "6"])
    assert len(losses(broken)) == 6
    resumed = run(ranks, 2, [*argv, *places("broken")])
    assert "at iteration 6 of 10" in resumed
    assert losses(broken) + losses(resumed) == losses(straight)
    for name in ("metrics.json", "predictions.jsonl", "test_predictions.jsonl", "QQP.tsv"):
        assert (tmp_path / "broken" / name).read_text() == (tmp_path / "straight" / name).read_text(), name
    assert "done already" in run(ranks, 2, [*argv, *places("broken")])
    kept = [path.name for path in (tmp_path / "straight").glob("iter_*")]
    assert kept == ["iter_0000010"]


@pytest.mark.slow
def test_a_longer_run_keeps_its_course_and_another_is_refused(ranks: RankPool, pretrained: str, tmp_path: Path) -> None:
    train = write_qqp(tmp_path / "train.tsv", 40)
    argv = ["--task", "QQP", "--pretrained-checkpoint", pretrained, *SMALL, "--train-data", train]
    argv += ["--save", str(tmp_path / "run"), "--load", str(tmp_path / "run")]
    run(ranks, 1, [*argv, "--epochs", "1"])
    longer = [*argv, "--epochs", "2"]
    for flags, named in (
        (["--lr-decay-iters", "10"], ["--lr-decay-iters 10 (saved: 5)", "--override-opt-param-scheduler"]),
        (["--global-batch-size", "4"], ["--global-batch-size 4 (saved: 8)", "start a new run"]),
        (["--train-data", train, train], ["--train-data", "(saved: ", "--override-settings train-data"]),
        (["--override-settings", "global-batch-size"], ["--override-settings global-batch-size", "no setting"]),
    ):
        code, output = ranks.run(1, WORKER, process_group=False, argv=[*longer, *flags])[-1]
        assert code == 2
        assert all(part in output.splitlines()[-1] for part in named), output
    shutil.copytree(tmp_path / "run", tmp_path / "kept")
    kept = [word.replace(f"{tmp_path}/run", f"{tmp_path}/kept") for word in longer]
    output = run(ranks, 1, kept)
    assert "warning: --train-iters 10 goes beyond the 5 iterations" in output
    assert "lr 0.000e+00" in output.split("iteration  6/10")[1].split("iteration  7/10")[0]
    output = run(ranks, 1, [*longer, "--override-opt-param-scheduler"])
    assert len(losses(output)) == 5
    assert "lr 0.000e+00" not in output.split("iteration  6/10")[1].split("iteration  7/10")[0]


def test_the_best_of_other_data_does_not_count(ranks: RankPool, pretrained: str, tmp_path: Path) -> None:
    train, valid = write_qqp(tmp_path / "train.tsv", 40), write_qqp(tmp_path / "dev.tsv", 21)
    argv = ["--task", "QQP", "--pretrained-checkpoint", pretrained, *SMALL, "--train-data", train]
    argv += ["--save", str(tmp_path / "run"), "--load", str(tmp_path / "run")]
    run(ranks, 1, [*argv, "--epochs", "1", "--valid-data", valid])
    path = tmp_path / "run" / "best" / "score.json"
    score = json.loads(path.read_text())
    path.write_text(json.dumps({**score, "score": 2.0}))
    run(ranks, 1, [*argv, "--epochs", "2", "--valid-data", valid])
    assert json.loads(path.read_text())["score"] == 2.0, "the best so far"
    run(ranks, 1, [*argv, "--epochs", "3", "--valid-data", train, "--override-settings", "valid-data"])
    assert json.loads(path.read_text())["iteration"] == 15, "of other data"


@pytest.mark.slow
def test_a_head_of_another_task_is_drawn_anew(ranks: RankPool, pretrained: str, tmp_path: Path) -> None:
    train = write_qqp(tmp_path / "train.tsv", 40)
    first = ["--task", "QQP", "--pretrained-checkpoint", pretrained, *SMALL, "--train-data", train, "--epochs", "1"]
    run(ranks, 1, [*first, "--valid-data", train, "--save", str(tmp_path / "qqp")])
    (tmp_path / "rte.tsv").write_text("index\tsentence1\tsentence2\tlabel\n" + "0\ta b\tc\tentailment\n" * 8)
    for task, data, new in (("RTE", str(tmp_path / "rte.tsv"), True), ("QQP", train, False)):
        argv = ["--task", task, "--pretrained-checkpoint", str(tmp_path / "qqp" / "best"), *SMALL]
        output = run(ranks, 2, [*argv, *PP2, "--train-data", data, "--epochs", "1"])
        assert ("drawn anew: classification_head.weight" in output) is new
    folder = str(tmp_path / "qqp")
    code, output = ranks.run(1, WORKER, process_group=False, argv=[*first, "--save", folder])[-1]
    assert code == 2
    assert f"--save {folder} holds a checkpoint: go on with it by --load {folder}" in output


def test_what_a_run_leaves(ranks: RankPool, pretrained: str, tmp_path: Path) -> None:
    train = write_qqp(tmp_path / "train.tsv", 40)
    sets = [write_qqp(tmp_path / f"dev_{name}.tsv", 33, seed) for seed, name in enumerate(("matched", "mismatched"))]
    folder = tmp_path / "run"
    argv = ["--task", "QQP", "--pretrained-checkpoint", pretrained, *SMALL, "--epochs", "3", "--keep-last", "2"]
    argv += ["--train-data", train, "--valid-data", *sets, "--save", str(folder), "--test-data", sets[0]]
    argv += ["--tensorboard-dir", str(folder / "board"), "--trace-interval", "5"]
    output = run(ranks, 1, argv)
    metrics = json.loads((folder / "metrics.json").read_text())
    assert [one["epoch"] for one in metrics["history"]] == [1.0, 2.0, 3.0]
    scores = [(one["dev_matched"]["accuracy"] + one["dev_mismatched"]["accuracy"]) / 2 for one in metrics["history"]]
    assert metrics["best"] == metrics["history"][scores.index(max(scores))]
    best = metrics["best"]["iteration"]
    assert [path.name for path in (folder / "best").glob("iter_*")] == [f"iter_{best:07d}"]
    assert sorted(path.name for path in folder.glob("iter_*")) == ["iter_0000010", "iter_0000015"]
    predictions = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    for name in ("dev_matched", "dev_mismatched"):
        of_one = [one for one in predictions if one["data"] == name]
        labels, predicted = [one["label"] for one in of_one], [one["prediction"] for one in of_one]
        assert metrics["best"][name]["accuracy"] == pytest.approx(accuracy_score(labels, predicted))
        assert metrics["best"][name]["f1"] == pytest.approx(f1_score(labels, predicted, pos_label="1"))
    submitted = (folder / "QQP.tsv").read_text().splitlines()
    first = [one["prediction"] for one in predictions if one["data"] == "dev_matched"]
    assert submitted == ["index\tprediction", *(f"{number}\t{value}" for number, value in enumerate(first))]
    assert f"test data is predicted by {folder}/best" in output
    assert (folder / "board" / "trace.jsonl").read_text().count("\n") == 1 + 4, "a header, iterations 1, 5, 10, 15"
    again = ["--task", "QQP", *SMALL, "--epochs", "0", "--valid-data", *sets, "--output-dir", str(tmp_path / "again")]
    run(ranks, 1, [*again, "--pretrained-checkpoint", str(folder / "best")])
    evaluated = json.loads((tmp_path / "again" / "metrics.json").read_text())["best"]
    assert evaluated["dev_matched"] == pytest.approx(metrics["best"]["dev_matched"], abs=1e-6)


@pytest.mark.slow
def test_it_learns_what_is_there_to_learn(ranks: RankPool, corpus: None, tmp_path: Path) -> None:
    train, valid = tmp_path / "train.tsv", tmp_path / "dev.tsv"
    words = [("a fine film", 1), ("a dull film", 0), ("what a fine day", 1), ("how dull it was", 0)]
    for path in (train, valid):
        path.write_text("sentence\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in 16 * words))
    argv = ["--task", "SST-2", *SCRATCH, *SMALL, "--epochs", "4", "--output-dir", str(tmp_path)]
    run(ranks, 1, [*argv, "--train-data", str(train), "--valid-data", str(valid)])
    assert json.loads((tmp_path / "metrics.json").read_text())["best"]["dev"]["accuracy"] == 1.0


@pytest.mark.slow
def test_a_score_is_learned_too(ranks: RankPool, corpus: None, tmp_path: Path) -> None:
    path = tmp_path / "dev.tsv"
    rows = [("one two", "one two", 5.0), ("one two", "cat dog", 0.0), ("one two", "one cat", 2.5)] * 12
    body = "".join(f"{n}\t{a}\t{b}\t{score}\n" for n, (a, b, score) in enumerate(rows))
    path.write_text("index\tsentence1\tsentence2\tscore\n" + body)
    argv = ["--task", "STS-B", *SCRATCH, *SMALL, *NO_DROPOUT, "--epochs", "12", "--output-dir", str(tmp_path)]
    run(ranks, 1, [*argv, "--train-data", str(path), "--valid-data", str(path), "--test-data", str(path)])
    assert json.loads((tmp_path / "metrics.json").read_text())["best"]["dev"]["pearson"] > 0.95
    first = (tmp_path / "STS-B.tsv").read_text().splitlines()[1].split("\t")
    assert first[0] == "0"
    assert float(first[1]) == pytest.approx(5.0, abs=1.0)


def test_epochs_follow_each_other_without_a_sample_left_out() -> None:
    from megatron.dslm.finetuning.dataset import ShuffledEpochs

    class Numbers:
        """A data set of its own indices, with lengths that fall."""

        def __len__(self) -> int:
            return 10

        def __getitem__(self, index: int) -> int:
            return index

        def lengths(self) -> list[int]:
            return list(range(10, 0, -1))

    for by_length in (False, True):
        order = ShuffledEpochs(Numbers(), seed=1, batch=4, by_length=by_length)  # type: ignore[arg-type]
        taken = [index for batch in itertools.islice(MicroBatchSampler(0, 4, 0, 1), 5) for index in batch]
        samples = [order[index] for index in taken]
        assert sorted(samples[:10]) == sorted(samples[10:]) == list(range(10))
        assert samples[:10] != samples[10:]
        assert [order[index] for index in (13, 2, 19)] == [samples[13], samples[2], samples[19]]
