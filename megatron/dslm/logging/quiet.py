"""Keeps the notes of libraries about what is not installed out of a run's output. Imports nothing heavy."""

import logging
import warnings


def quiet_libraries() -> None:
    """Call it before megatron-core is imported, which warns at import that Apex and Transformer Engine are absent."""
    for message in (".*Apex (is|are) not installed.*", ".*Transformer Engine and Apex are not installed.*"):
        warnings.filterwarnings("ignore", message=message)
    warnings.filterwarnings(
        "ignore", category=FutureWarning, message=".*is deprecated. Please use .torch.distributed.*"
    )
    warnings.filterwarnings("ignore", module=r"(megatron\.core|torch\.distributed\.checkpoint).*")
    logging.getLogger("megatron.core").setLevel(logging.ERROR)
