"""A run over its iterations: losses beside their n-grams, and each layer's signal as maps."""

from pathlib import Path

import pytest
from matplotlib.figure import Figure
from torch.utils.tensorboard import SummaryWriter

from dslm_patches.errors import UserError
from dslm_patches.tracing.history import (
    LossCurves,
    draw_history,
    draw_losses,
    loss_in_words,
    read_losses,
    signal_in_words,
)
from dslm_patches.tracing.trace_file import TraceWriter
from megatron.dslm.cli.main import main
from tests.tracing.test_trace_file import HEADER, step


def write_losses(folder: Path) -> None:
    """As a run writes them: the n-grams in folders of their own."""
    with SummaryWriter(folder) as writer:
        for iteration, loss in ((0, 7.0), (10, 4.5)):
            writer.add_scalar("validation/lm loss", loss, iteration)
        writer.add_scalar("training/lm loss", 5.0, 10)
    with SummaryWriter(folder / "unigrams") as writer:
        writer.add_scalar("validation/lm loss", 4.952, 0)


def test_losses_are_read_with_their_baselines(tmp_path: Path) -> None:
    write_losses(tmp_path)
    losses = read_losses(tmp_path)
    assert losses is not None
    assert losses.curves == {"training": [(10, 5.0)], "validation": [(0, 7.0), (10, 4.5)]}
    assert losses.baselines == {"unigrams": pytest.approx(4.952)}
    assert loss_in_words(losses) == "lm loss 4.500 at iteration 10, 0.452 nats below unigrams (4.952): it uses context"
    figure = Figure()
    draw_losses(figure, losses, "")
    assert [line.get_label() for line in figure.axes[0].lines] == ["training", "validation", "unigrams, 4.952"]


@pytest.mark.parametrize(
    ("loss", "message"),
    [(4.9, "0.052 nats below unigrams (4.952): hardly more than"), (5.0, "0.048 nats above unigrams (4.952): hardly")],
)
def test_a_plateau_is_called_one(loss: float, message: str) -> None:
    assert message in loss_in_words(LossCurves("lm loss", {"validation": [(10, loss)]}, {"unigrams": 4.952}))


def test_a_folder_without_losses_has_none(tmp_path: Path) -> None:
    assert read_losses(tmp_path) is None


def test_maps_need_two_steps() -> None:
    with pytest.raises(UserError, match="two traced steps"):
        draw_history(Figure(), [step(1)], "")


def test_the_command_draws_both_and_says_what_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    writer = TraceWriter(tmp_path, HEADER)
    for iteration in (1, 10, 20):
        writer.write(step(iteration))
    write_losses(tmp_path)
    assert main(["trace", "history", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == f"wrote {tmp_path / 'loss_over_baselines.png'}"
    assert lines[2].startswith("lm loss 4.500 at iteration 10")
    assert lines[3] == signal_in_words(step(20))
    for name in ("signal_over_training", "loss_over_baselines"):
        assert (tmp_path / f"{name}.png").stat().st_size > 5_000
