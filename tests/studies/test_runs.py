"""Studies keep what is complete, go on with what was cut short, and read the losses that the program printed."""

import json
import math
from pathlib import Path

import pytest

from studies import first_steps, rates, runs, thousand_layers
from studies.small_models import Setting, run_of

LOG = """\
baselines: unigrams 4.469, bigrams 3.389 nats a validation token, by 1,583,614 training tokens
validation loss at iteration 0: 5.9046 | lm loss 5.9046
iteration  2/6 | lm loss 5.8000 | grad norm 1.3 | lr 6.000e-04 | 40 ms | 440 tokens/s | ETA 0:38:00
validation loss at iteration 3: 5.7000 | lm loss 5.7000
iteration  4/6 | lm loss 9.9000 | grad norm 1.3 | lr 6.000e-04 | 40 ms | 440 tokens/s | ETA 0:38:00
resumed from checkpoints/iter_0000003 at iteration 3 of 6
iteration  4/6 | lm loss 5.6000 | grad norm 1.3 | lr 6.000e-04 | 40 ms | 440 tokens/s | ETA 0:38:00
"""
RUN = runs.Run("dslm-lr1e-2", "gpt", ("--dslm",), 6)


def result(name: str, loss: float, **more: object) -> runs.Result:
    return runs.Result(name, [], 6, validation=[(0, 5.9), (6, loss)], unigrams=4.469, **more)  # type: ignore[arg-type]


def test_the_last_line_of_a_step_counts() -> None:
    read = runs.read_log(RUN, LOG)
    assert read.validation == [(0, 5.9046), (3, 5.7)]
    assert read.training == [(2, 5.8), (4, 5.6)]
    assert (read.unigrams, read.bigrams, read.test, read.stopped) == (4.469, 3.389, None, None)
    ended = runs.read_log(RUN, LOG + "pretrain_gpt.py: stopped: iteration 5: the loss is not finite\n")
    assert ended.stopped == "iteration 5: the loss is not finite"
    assert ended.last == float("inf")


def test_a_complete_run_is_kept_and_another_one_in_its_folder_is_refused(tmp_path: Path) -> None:
    complete = runs.Result(RUN.name, list(RUN.flags), RUN.steps, validation=[(6, 3.0)], test=3.1)
    (tmp_path / RUN.name).mkdir()
    runs.complete(complete, tmp_path)
    kept = runs.train(RUN, tmp_path)
    assert (kept.validation, kept.test) == ([[6, 3.0]], 3.1)
    with pytest.raises(runs.StudyError, match="other flags or steps"):
        runs.train(runs.Run(RUN.name, "gpt", ("--dslm", "--seed", "2"), 6), tmp_path)


def test_the_table_marks_the_best_rate_of_each_scheme(tmp_path: Path) -> None:
    first = [result("dslm-lr1e-2", 2.8), result("dslm-lr3e-3", 3.0), result("xavier-lr3e-3", 3.5)]
    rates.write(first, tmp_path / "table.json")
    known = rates.write([result("dslm-lr2e-2", 2.0, stopped="not finite")], tmp_path / "table.json")
    assert rates.table(known).splitlines() == [
        "| scheme | 3e-3 | 1e-2 | 2e-2 |",
        "|---|---|---|---|",
        "| `dslm` | 3.000 | **2.800** | not finite |",
        "| `xavier` | **3.500** |  |  |",
    ]


def test_seeds_are_averaged_and_their_spread_is_shown() -> None:
    seeds = [result("dslm-lr1e-2", 2.8), result("dslm-lr1e-2-seed2", 3.0), result("dslm-lr3e-3", 2.95)]
    assert rates.table(seeds).splitlines()[-1] == "| `dslm` | 2.950 | **2.900** (2.800 to 3.000) |"


def test_a_third_of_the_steps_decides_which_rivals_go_on() -> None:
    first, second = result("megatron-lr3e-3", 3.5), result("megatron-std0.06-lr3e-3", 3.4)
    assert thousand_layers.why_not_on(second, second) is None
    assert thousand_layers.why_not_on(first, second) == "another of Megatron's initialisations is ahead"
    assert thousand_layers.why_not_on(result("xavier-lr1e-3", 3.6), second) is None
    assert thousand_layers.why_not_on(result("xavier-lr1e-3", 4.45), second) == "on the unigram plateau"
    assert thousand_layers.why_not_on(result("xavier-lr1e-3", 9.0, stopped="not finite"), second) is None
    assert thousand_layers.why_not_on(result("xavier-lr1e-3", 4.45, test=4.4), second) is None, "it ran to its end"


@pytest.mark.slow
def test_a_study_from_the_first_run_to_its_figure(
    corpus: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(thousand_layers, "MEGATRON", thousand_layers.MEGATRON[:1])
    monkeypatch.setattr(thousand_layers, "RIVALS", thousand_layers.RIVALS[:1])
    setting = Setting("gpt", 4, 6, hidden_size=16, sequences=2)
    results = thousand_layers.study(setting, tmp_path, jobs=2)
    assert [one.name for one in results] == ["dslm-k0.5-lr1e-2", "megatron-lr3e-3"]
    assert [step for step, _ in results[0].validation] == [0, 2, 4, 6]
    log = (tmp_path / results[0].name / "log.txt").read_text()
    assert "at iteration 2 of 6" in log, "it went on from a third"
    found = thousand_layers.losses(run_of(setting, *thousand_layers.METHOD), tmp_path / results[0].name, 8)
    assert found["all layers"] == pytest.approx(results[0].last, abs=1e-4)
    assert len({round(one, 6) for one in found.values()}) == 4
    thousand_layers.curves(results, "small", tmp_path / "losses.png")
    assert (tmp_path / "losses.png").stat().st_size > 10_000


@pytest.mark.slow
def test_the_first_steps_are_seen_and_not_taken_twice(
    corpus: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--layers", "2", "--steps", "24", "--until", "10", "--schemes", "dslm-k0.5", "megatron-post"]
    monkeypatch.setattr("sys.argv", ["first_steps", *words, "--folder", str(tmp_path)])
    first_steps.main()
    logs = {path: path.read_text() for path in tmp_path.rglob("log.txt")}
    assert len(logs) == 2
    assert all("iter_0000010" in text and "iteration 12/24" not in text for text in logs.values())
    table = capsys.readouterr().out
    first_steps.main()
    assert {path: path.read_text() for path in logs} == logs, "what was taken is not taken again"
    assert capsys.readouterr().out.endswith(table[table.index("| scheme") :])
    seen = json.loads((tmp_path / "first-steps-2" / "results.json").read_text())
    assert list(seen["megatron-post"]) == ["1", "5", "10"]
    for numbers in (one["10"] for one in seen.values()):
        assert set(numbers) == set(first_steps.NUMBERS)
        assert all(math.isfinite(value) for value in numbers.values())
        assert 0 < numbers["update_bottom"] < 1
