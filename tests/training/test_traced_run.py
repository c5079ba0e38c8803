"""Traces in a real run: files, curves and pictures on TensorBoard's page, and a halt that names the tensor."""

import json
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from dslm_patches.tracing.trace_file import read_header, read_records
from megatron.dslm.arguments import parse_args
from tests.corpus import ROOT, data_flags
from tests.distributed.pool import RankPool
from tests.ports import free_port

WORKERS = "tests.training.pretrain_workers"
SHAPE = ["--num-layers", "4", "--hidden-size", "32", "--num-attention-heads", "4", "--seq-length", "32", "--dslm"]
TRAINING = ["--micro-batch-size", "2", "--global-batch-size", "4", "--train-iters", "6", "--lr", "1e-3"]
LOGGING = ["--log-interval", "1", "--eval-iters", "0", "--trace-interval", "2", "--trace-theory"]
ARTEFACT = ROOT / "runs" / "tensorboard_page.png"
CARD = 'title="layer activation variance/000'
CURVE = re.compile(r'<path d="M[^"]+L[^"]+" style="fill: none; stroke')
PICTURE = re.compile(r'<img [^>]*alt="Image at step 6"[^>]*imageData')
TP2, PP2 = ["--tensor-model-parallel-size", "2"], ["--pipeline-model-parallel-size", "2"]


def command(model: str, folder: Path, *extra: str) -> list[str]:
    return [*SHAPE, *TRAINING, *LOGGING, "--tensorboard-dir", str(folder), *data_flags(model), *extra]


@pytest.fixture(scope="module")
def traced(ranks: RankPool, corpus: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run over two pipeline stages that traced everything."""
    folder = tmp_path_factory.mktemp("traced")
    sites = ["--trace-sites", "layer", "attention", "ffn", "norms", "logits", "embeddings", "head", "weights"]
    argv = command("bert", folder, *sites, *PP2)
    assert ranks.run(2, f"{WORKERS}:run", process_group=False, argv=argv, model="bert")[-1][0] == 0
    return folder


def test_a_run_writes_its_traces(traced: Path) -> None:
    records = list(read_records(traced))
    assert [one.iteration for one in records] == [1, 2, 4, 6]
    assert all(len(one.sites) == 9 and "mlp.linear_fc2.weight" in one.weights for one in records)
    header = read_header(traced)
    assert header.title == "BERT 4 x 32, dslm, pre-LN"
    assert header.prediction is not None
    assert header.prediction.variance == pytest.approx([1.0] * 4, abs=0.1)


@pytest.mark.slow
def test_tensorboards_page_shows_curves_and_the_depth_figure(traced: Path, tmp_path: Path) -> None:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("needs a browser: apt-get install chromium (CI does)")
    port = free_port()
    server = [str(Path(sys.executable).parent / "tensorboard"), "--logdir", str(traced), "--port", str(port)]
    with subprocess.Popen(
        [*server, "--host", "localhost"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as board:
        try:
            wait_for_data(port)
            page = open_page(chromium, port, tmp_path)
        finally:
            board.terminate()
    assert page.count(CARD) == 4
    assert 'title="depth/variance against depth"' in page
    assert PICTURE.search(page), "the figure's picture"
    assert len(CURVE.findall(page)) >= 4, "the curves' lines"
    assert ARTEFACT.stat().st_size > 20_000


def wait_for_data(port: int) -> None:
    """Until TensorBoard answers and has read the run."""
    for _ in range(120):
        try:
            with urllib.request.urlopen(f"http://localhost:{port}/data/plugin/timeseries/tags", timeout=10) as answer:
                if "variance against depth" in answer.read().decode():
                    return
        except OSError:
            pass
        time.sleep(0.5)
    pytest.fail("TensorBoard did not serve the run")


def open_page(chromium: str, port: int, profile: Path) -> str:
    """The page's text once its cards are drawn, which the browser does one by one; keeps a screenshot."""
    ARTEFACT.parent.mkdir(exist_ok=True)
    tags = "tagFilter=against%20depth%7Clayer%20activation%20variance"
    quiet = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-quic"]
    look = ["--virtual-time-budget=60000", f"--screenshot={ARTEFACT}", "--dump-dom", "--window-size=1600,1400"]
    start = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", f"--user-data-dir={profile}"]
    page = ""
    for _ in range(8):
        done = subprocess.run(
            [*start, *quiet, *look, f"http://localhost:{port}/?forceSVG=true&{tags}#timeseries"],
            capture_output=True,
            text=True,
            timeout=120,
        )
        page = done.stdout
        if len(CURVE.findall(page)) >= 4 and PICTURE.search(page):
            break
    return page


@pytest.mark.slow
@pytest.mark.parametrize(("world_size", "layout"), [(1, []), (2, PP2), (2, TP2)])
def test_a_non_finite_tensor_halts_all_ranks_by_name(
    ranks: RankPool, corpus: None, tmp_path: Path, world_size: int, layout: list[str]
) -> None:
    sites = ["--trace-sites", "layer", "attention", "ffn", "--trace-halt-on", "non-finite"]
    argv = command("bert", tmp_path, *layout, *sites)
    results = ranks.run(world_size, f"{WORKERS}:run_poisoned", process_group=False, argv=argv, model="bert", layer=3)
    assert [code for code, _ in results] == [1] * world_size
    stopped = [line for _, output in results for line in output.splitlines() if "stopped" in line]
    assert len(stopped) == 1, "one line, on one rank"
    assert "stopped: iteration 1: first non-finite activation: layer 3, ffn (" in stopped[0]
    report = tmp_path / "non_finite_0000001.json"
    assert str(report) in stopped[0]
    content = json.loads(report.read_text())
    assert content["alerts"][0].startswith("first non-finite activation: layer 3, ffn")
    assert content["sites"]["layer"]["activation"]["non_finite"][1] == 0.0
    assert content["sites"]["layer"]["activation"]["non_finite"][2] > 0.0


def test_a_non_finite_loss_ends_a_run_without_the_flag_and_is_named(
    ranks: RankPool, corpus: None, tmp_path: Path
) -> None:
    argv = command("bert", tmp_path)
    ((code, output),) = ranks.run(1, f"{WORKERS}:run_poisoned", process_group=False, argv=argv, model="bert", layer=2)
    assert code == 1
    assert "warning: iteration 1: first non-finite activation: layer 2" in output
    assert "stopped: iteration 1: gradient norm nan" in output
    assert "nothing was updated" in output


def test_a_mode_that_is_not_covered_is_one_line_from_all_ranks(ranks: RankPool, corpus: None, tmp_path: Path) -> None:
    argv = command("gpt", tmp_path, *PP2)
    results = ranks.run(2, f"{WORKERS}:run_with_moe_config", process_group=False, argv=argv, model="gpt")
    assert [code for code, _ in results] == [2, 2]
    errors = [line for _, output in results for line in output.splitlines() if "error:" in line]
    assert len(errors) == 1
    assert "tracing does not cover mixture of experts" in errors[0]


def test_a_resume_with_other_sites_is_refused_on_all_ranks(ranks: RankPool, corpus: None, tmp_path: Path) -> None:
    save = ["--save", f"{tmp_path}/save", "--load", f"{tmp_path}/save", *PP2]
    first = command("bert", tmp_path, *save, "--exit-interval", "2")
    assert ranks.run(2, f"{WORKERS}:run", process_group=False, argv=first, model="bert")[-1][0] == 0
    other = command("bert", tmp_path, *save, "--trace-sites", "attention", "weights")
    results = ranks.run(2, f"{WORKERS}:run", process_group=False, argv=other, model="bert")
    assert [code for code, _ in results] == [2, 2]
    errors = [line for _, output in results for line in output.splitlines() if "error:" in line]
    assert len(errors) == 1
    assert "--trace-sites attention weights:" in errors[0]
    assert "was begun with layer on 4 layers" in errors[0]


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--trace-interval", "5"], "--trace-interval 5 needs --trace-dir or --tensorboard-dir"),
        (["--trace-theory"], "--trace-theory needs --trace-interval"),
        (["--trace-halt-on", "non-finite"], "--trace-halt-on needs --trace-interval"),
        (["--trace-interval", "-1", "--trace-dir", "x"], "--trace-interval must not be negative"),
        (["--trace-sites", "logit", "--trace-dir", "x"], "invalid choice: 'logit'"),
        (["--trace-growth-limit", "0", "--trace-dir", "x"], "--trace-growth-limit must be positive"),
        (["--trace-dir", "/dev/null/x"], "--trace-dir /dev/null/x"),
    ],
)
def test_mistakes_in_trace_flags_are_one_line(
    corpus: None, capsys: pytest.CaptureFixture[str], flags: list[str], told: str
) -> None:
    with pytest.raises(SystemExit) as end:
        parse_args("bert", [*SHAPE, *TRAINING, *data_flags("bert"), *flags])
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1
