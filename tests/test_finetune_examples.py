"""The sweeps of examples/finetune, run with torchrun replaced by a command that writes its words down."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.corpus import ROOT

SWEEPS = {"mnli": ("MNLI", "3", "32", "0.1"), "qqp": ("QQP", "5", "32", "0.1"), "race": ("RACE", "5", "8", "0.06")}
STAND_IN = """#!{python}
import json, os, sys
words = sys.argv[1:]
run = words[words.index("--save") + 1]
os.makedirs(run)
lr, seed = float(words[words.index("--lr") + 1]), int(words[words.index("--seed") + 1])
metrics = {{"iteration": 7, "dev": {{"accuracy": lr * 1e4 + seed / 100}}}}
content = {{"task": "X", "lr": lr, "train_iters": 7, "history": [metrics], "best": metrics}}
open(run + "/metrics.json", "w").write(json.dumps(content))
open("words.jsonl", "a").write(json.dumps(words) + "\\n")
"""


@pytest.mark.parametrize("name", SWEEPS)
def test_a_sweep_is_the_original_one(name: str, tmp_path: Path) -> None:
    # The script goes to the repository's root, which is therefore a copy of links here.
    (tmp_path / "examples" / "finetune").mkdir(parents=True)
    script = tmp_path / "examples" / "finetune" / f"run_{name}.sh"
    script.write_text((ROOT / "examples" / "finetune" / script.name).read_text())
    (tmp_path / "tools").symlink_to(ROOT / "tools")
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "torchrun").write_text(STAND_IN.format(python=sys.executable))
    (programs / "torchrun").chmod(0o755)
    path = f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", str(script), "--extra"], env={**os.environ, "PATH": path}, capture_output=True, text=True, check=True
    )
    runs = [json.loads(line) for line in (tmp_path / "words.jsonl").read_text().splitlines()]
    task, epochs, batch, warmup = SWEEPS[name]
    expected = {
        "--task": task,
        "--epochs": epochs,
        "--global-batch-size": batch,
        "--lr-warmup-fraction": warmup,
        "--weight-decay": "0.01",
        "--seq-length": "512",
    }
    seen = set()
    for words in runs:
        assert words[-1] == "--extra"
        assert {flag: words[words.index(flag) + 1] for flag in expected} == expected
        places = {words[words.index(flag) + 1] for flag in ("--save", "--load")}
        assert len(places) == 1, "a run resumes from its own folder"
        seen.add((words[words.index("--lr") + 1], words[words.index("--seed") + 1], places.pop()))
    assert len(seen) == len({place for _, _, place in seen}) == 25
    assert {lr for lr, _, _ in seen} == {"1e-5", "2e-5", "3e-5", "4e-5", "5e-5"}
    rows = [line.split() for line in done.stdout.splitlines()[-5:]]
    assert [row[3:8] for row in rows[:1]] == [["1e-05", "5", "0.1300", "0.1100", "0.1500"]]
    assert [row[-1] for row in rows] == ["0.1500", "0.2500", "0.3500", "0.4500", "*"], "the best rate is marked"


def test_incomplete_runs_are_named_and_left_out(tmp_path: Path) -> None:
    for seed, iteration in ((1, 7), (2, 3)):
        metrics = {"iteration": iteration, "dev": {"accuracy": 0.5}}
        content = {"task": "QQP", "lr": 1e-5, "train_iters": 7, "history": [metrics], "best": metrics}
        (tmp_path / f"seed{seed}").mkdir()
        (tmp_path / f"seed{seed}" / "metrics.json").write_text(json.dumps(content))
    command = [sys.executable, "tools/summarise_sweep.py"]
    table = tmp_path / "table.json"
    done = subprocess.run([*command, str(tmp_path), "--json", str(table)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stderr == f"{tmp_path}/seed2: not complete, left out\n"
    (row,) = json.loads(table.read_text())
    assert (row["values"], row["median"]) == ([0.5], 0.5)
    (tmp_path / "seed1" / "metrics.json").write_text("[]")
    done = subprocess.run([*command, str(tmp_path)], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "not a metrics.json" in done.stderr
