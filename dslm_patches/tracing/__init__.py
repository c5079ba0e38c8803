"""Measures a megatron-core model's layers while it trains, exactly, whatever the layout; writes and draws what it saw.

`Tracer` and `TensorBoardTraces` need torch and are imported at first use; records, trace files, alerts and figures
need numpy and matplotlib alone.
"""

from typing import Any

__all__ = ["Tracer"]


def __getattr__(name: str) -> Any:
    if name == "Tracer":
        from dslm_patches.tracing.tracer import Tracer

        return Tracer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
