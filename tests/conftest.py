"""Fixtures that all tests share."""

import warnings
from collections.abc import Iterator

import pytest
import torch

from dslm_patches.cpu.gpu_packages import hide_gpu_packages
from dslm_patches.cpu.late_compile import compile_late
from tests.corpus import prepare
from tests.distributed.pool import RankPool


def pytest_configure(config: pytest.Config) -> None:
    """Before tests import megatron-core: what `dslm_patches.cpu.install` does first. The rest of it is the ranks'.

    Processes that share the cores take one thread each: waiting for each other's threads costs both.
    """
    hide_gpu_packages()
    with warnings.catch_warnings():  # pytest hears none yet
        warnings.simplefilter("ignore")
        compile_late()
    if hasattr(config, "workerinput"):
        torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first: processes that share the files then end at about the same time."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def ranks() -> Iterator[RankPool]:
    """The pool of gloo ranks of this session; its processes start at the first call of `ranks.run`."""
    pool = RankPool()
    yield pool
    pool.close()


@pytest.fixture(autouse=True)
def _measure_short_tests(request: pytest.FixtureRequest) -> None:
    """Coverage makes ranks half as slow again, and slow tests have a shorter sibling that runs the same lines."""
    if "ranks" in request.fixturenames:
        request.getfixturevalue("ranks").measured = request.node.get_closest_marker("slow") is None


@pytest.fixture(scope="session")
def corpus() -> None:
    """Makes sure that the small Wikipedia corpus of `tests.corpus` is there."""
    prepare()
