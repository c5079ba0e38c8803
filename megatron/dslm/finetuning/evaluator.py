"""Evaluations of a fine-tuning run: said, drawn, and written to metrics.json and the prediction files."""

from argparse import Namespace
from pathlib import Path
from typing import Any

from megatron.dslm.distributed.ranks import from_last_rank, json_of_last_rank
from megatron.dslm.finetuning.dataset import TaskDataset
from megatron.dslm.finetuning.evaluate import Logits, measure, predict
from megatron.dslm.finetuning.results import data_names, write_json, write_predictions, write_submission
from megatron.dslm.logging.progress import Progress
from megatron.dslm.models.bert_classifier.model import forward_step
from megatron.dslm.tasks import Task
from megatron.dslm.training.step import Trainer


class Evaluator:
    """Evaluates the data of --valid-data, and predicts that of --test-data. All ranks call all of it.

    Args:
        iteration: where the run goes on from; the history of metrics.json up to there is kept.
    """

    def __init__(self, args: Namespace, task: Task, trainer: Trainer, progress: Progress, iteration: int) -> None:
        self._args, self._task, self._trainer, self._progress = args, task, trainer, progress
        self._step = forward_step(task, training=False)
        self._sets = self._named("valid_data")
        self._tests = self._named("test_data")
        self._logits: dict[str, Logits] = {}
        self._folder = Path(args.output_dir) if args.output_dir else None
        self._history = self._kept_history(iteration)

    def evaluate(self, iteration: int) -> float | None:
        """Evaluates every set; the mean of the task's first metric over them, None without sets."""
        score = None
        results = {}
        for name, dataset in self._sets.items():
            logits = predict(self._trainer, self._step, dataset)
            if self._progress.speaks and logits is not None:
                self._logits[name] = logits
                results[name] = measure(self._task, dataset.examples, logits)
                self._say(iteration, name, results[name])
        if results:
            first = next(iter(self._task.metrics))
            score = sum(one[first] for one in results.values()) / len(results)
            self._history.append({"iteration": iteration, "epoch": round(self._epoch(iteration), 3), **results})
            self._write({"last": self._history[-1]})
        # Every rank must know whether these weights are the best so far.
        return from_last_rank(self._args, score)

    def keep(self) -> None:
        """The last evaluation is the best so far: writes its predictions, and says so in metrics.json."""
        if self._folder is None or not self._progress.speaks:
            return
        named = [(name, one.examples, self._logits[name]) for name, one in self._sets.items()]
        path = self._folder / "predictions.jsonl"
        self._progress.guarded(lambda: write_predictions(path, self._task, named))
        self._write({"best": self._history[-1]})

    def predict_tests(self) -> None:
        """Predicts --test-data by the weights as they are: test_predictions.jsonl, and GLUE's submission."""
        named = []
        for (name, dataset), source in zip(self._tests.items(), self._args.test_data or [], strict=True):
            logits = predict(self._trainer, self._step, dataset)
            if not self._progress.speaks or logits is None:
                continue
            named.append((name, dataset.examples, logits))
            metrics = measure(self._task, dataset.examples, logits)
            if metrics:
                self._say(self._args.train_iters, f"test/{name}", metrics)
                self._write({"test": {name: metrics}})
            if self._folder is not None:
                path = write_submission(self._folder, source, self._task, dataset.examples, logits)
                self._progress.say(f"wrote {path}" if path else f"predicted {name}")
        if named and self._folder is not None:
            write_predictions(self._folder / "test_predictions.jsonl", self._task, named)

    def _named(self, data: str) -> dict[str, TaskDataset]:
        files = self._args.examples[data]
        names = data_names([path for path, _ in files])
        return {
            name: TaskDataset(self._args, self._task, examples)
            for name, (_, examples) in zip(names, files, strict=True)
        }

    def _epoch(self, iteration: int) -> float:
        files = self._args.examples["train_data"]
        return iteration * self._args.global_batch_size / len(files[0][1]) if files else 0.0

    def _say(self, iteration: int, name: str, metrics: dict[str, float]) -> None:
        summary = " | ".join(f"{metric} {value:.4f}" for metric, value in metrics.items())
        self._progress.say(f"{name} at iteration {iteration} (epoch {self._epoch(iteration):.2f}): {summary}")
        self._progress.scalars(name, metrics, iteration)

    def _kept_history(self, iteration: int) -> list[dict[str, Any]]:
        self._content: dict[str, Any] = {}
        if iteration == 0 or self._folder is None:
            return []
        self._content = json_of_last_rank(self._args, str(self._folder / "metrics.json"), ("history",)) or {}
        return [one for one in self._content.get("history", []) if one["iteration"] <= iteration]

    def _write(self, news: dict[str, Any]) -> None:
        if self._folder is None:
            return
        args = self._args
        settings = {name: getattr(args, name) for name in ("task", "lr", "global_batch_size", "seed")}
        settings |= {"pretrained_checkpoint": args.pretrained_checkpoint, "train_iters": args.train_iters}
        for name, value in news.items():
            merged = {**self._content.get(name, {}), **value} if name == "test" else value
            self._content[name] = merged
        self._content = {**self._content, **settings, "history": self._history}
        path = self._folder / "metrics.json"
        self._progress.guarded(lambda: write_json(path, self._content))
