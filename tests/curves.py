"""What a run drew in TensorBoard."""

from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

_OF_THE_MACHINE = (" per second", "/MFU", "/peak memory in GiB")
"""How the names of curves end that no two runs share."""


def curves(folder: Path) -> dict[str, dict[int, float]]:
    """`curves_of` a run that draws into board/ of a folder."""
    return curves_of(folder / "board")


def curves_of(board: Path) -> dict[str, dict[int, float]]:
    """Every scalar of a run's TensorBoard files, by tag and step, as the float32 they are; none of the machine."""
    found: dict[str, dict[int, float]] = {}
    for file in sorted(board.glob("events*")):
        events = EventAccumulator(str(file), size_guidance={"scalars": 0})
        events.Reload()
        for tag in events.Tags()["scalars"]:
            if not tag.endswith(_OF_THE_MACHINE):
                found.setdefault(tag, {}).update({event.step: event.value for event in events.Scalars(tag)})
    return found
