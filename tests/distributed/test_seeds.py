"""Dropout is seeded differently at every place of a layout, and alike on its tensor-parallel ranks."""

import numpy as np

from megatron.dslm.distributed.initialize import seed_of_place
from tests.distributed.pool import RankPool

WORKERS = "tests.distributed.seed_workers"
READ_BY_CPU = 1 << 32
"""torch's generator on the CPU takes a seed's last 32 bits."""


def test_no_two_places_of_a_large_layout_share_a_seed(ranks: RankPool) -> None:
    seed, tensor_parallel, places = 1234, 128, 16 * 1024  # places: pipeline stages x data-parallel replicas
    (derived,) = ranks.run(1, f"{WORKERS}:derived_by_megatron", layout={}, seed=seed, tensor_parallel=tensor_parallel)
    offsets = {one - seed for of_rank in derived for one in of_rank}
    assert len(offsets) == 1 + 2 * tensor_parallel, "the place's own, and two of each tensor-parallel rank"
    own = np.array([seed_of_place(seed, place) for place in range(places)])
    seen = np.add.outer(own, np.array(sorted(offsets))) % READ_BY_CPU
    assert len(np.unique(seen)) == seen.size


def test_places_are_numbered_apart(ranks: RankPool) -> None:
    layout = {"pipeline_model_parallel_size": 2}
    found = ranks.run(4, f"{WORKERS}:seeds_of_this_rank", layout=layout, seed=7)
    assert found[0][0] == 7, "a lone process, and the first place, keep the seed itself"
    assert len({own for own, _ in found}) == 4
    assert len(set().union(*(of_rank for _, of_rank in found))) == sum(len(of_rank) for _, of_rank in found)


def test_tensor_parallel_ranks_share_the_seed_of_their_place(ranks: RankPool) -> None:
    layout = {"tensor_model_parallel_size": 2}
    found = ranks.run(4, f"{WORKERS}:seeds_of_this_rank", layout=layout, seed=7)
    assert sorted(own for own, _ in found) == [7, 7, seed_of_place(7, 1), seed_of_place(7, 1)]
