"""Where [PAD] stands in the vocabulary changes nothing but its id."""

from pathlib import Path

import numpy as np
import pytest

from tests.distributed.pool import RankPool
from tests.reliability.site import WORDPIECES, pretraining_flags, words, write_data

SENTENCES = [["a", "b"], ["c"], ["d", "e", "f"], ["g"], ["h", "a"], ["b", "c", "d"]]


def site_with(folder: Path, tokens: list[str]) -> list[str]:
    """A command line on the same sentences in a vocabulary of its own."""
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(tokens) + "\n")
    ids = [[tokens.index(token) for token in sentence] for sentence in SENTENCES]
    write_data(folder / "tiny", ids, [0, 2, 4, 6])
    return words({**pretraining_flags(folder), "split": "2,1,0", "eval_iters": "1", "mask_prob": "0.3"})


@pytest.mark.parametrize("place", [1, len(WORDPIECES) - 1])
def test_samples_do_not_depend_on_the_place_of_the_padding_token(ranks: RankPool, tmp_path: Path, place: int) -> None:
    moved = [token for token in WORDPIECES if token != "[PAD]"]
    moved.insert(place, "[PAD]")
    published, other = (
        ranks.run(1, "tests.data.padding_workers:training_samples", argv=site_with(tmp_path / name, tokens))[0]
        for name, tokens in (("published", WORDPIECES), ("moved", moved))
    )
    assert len(published) == len(other) >= 20
    new_id = np.array([moved.index(token) for token in WORDPIECES])
    for first, second in zip(published, other, strict=True):
        for key in ("types", "padding_mask", "loss_mask", "is_random"):
            np.testing.assert_array_equal(first[key], second[key])
        assert 0 < first["padding_mask"].sum() < len(first["padding_mask"])
        kept = first["loss_mask"] == 0  # a masked token may give way to any id of the vocabulary, by its number
        np.testing.assert_array_equal(new_id[first["text"]][kept], second["text"][kept])
        labels = np.where(kept, -1, new_id[first["labels"]])
        np.testing.assert_array_equal(labels, second["labels"])
