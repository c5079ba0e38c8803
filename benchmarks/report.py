"""The JSON line that every benchmark ends with."""

import json
import platform
import statistics
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("torch", "megatron-core", "numpy")


def print_report(benchmark: str, results: list[dict[str, Any]]) -> None:
    """One line: what ran, where, with which versions, and its results."""
    machine = {"cpu": cpu_name(), "cpus": torch.get_num_threads(), "architecture": platform.machine()}
    if torch.cuda.is_available():
        machine["gpu"] = torch.cuda.get_device_name()
    versions = {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}
    print(json.dumps({"benchmark": benchmark, "machine": machine, "versions": versions, "results": results}))


def cpu_name() -> str:
    """The processor's own name, where the system tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


def paired(case: str, metric: str, ours: list[float], peer: list[float], digits: int = 4) -> dict[str, Any]:
    """A result of pairs that ran in turn: medians of both sides, and the median and quartiles of their ratios."""
    ratios = [a / b for a, b in zip(ours, peer, strict=True)]
    result = {
        "case": case,
        "metric": metric,
        "ours": round(statistics.median(ours), digits),
        "peer": round(statistics.median(peer), digits),
        "ratio": round(statistics.median(ratios), digits),
        "pairs": len(ratios),
    }
    if len(ratios) > 3:
        low, _, high = statistics.quantiles(ratios, n=4)
        result["ratio_quartiles"] = [round(low, digits), round(high, digits)]
    return result
