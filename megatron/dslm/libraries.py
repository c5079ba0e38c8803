"""What every entry point does before it imports megatron-core."""

import logging
import warnings


def prepare_libraries() -> None:
    """Call it before megatron-core is imported.

    Keeps the libraries' notes about what is not installed out of the output, and without a GPU has megatron-core find
    neither Transformer Engine nor Apex.
    """
    for message in (".*Apex (is|are) not installed.*", ".*Transformer Engine and Apex are not installed.*"):
        warnings.filterwarnings("ignore", message=message)
    warnings.filterwarnings(
        "ignore", category=FutureWarning, message=".*is deprecated. Please use .torch.distributed.*"
    )
    warnings.filterwarnings("ignore", module=r"(megatron\.core|torch\.distributed\.checkpoint).*")
    logging.getLogger("megatron.core").setLevel(logging.ERROR)
    import dslm_patches.cpu  # noqa: F401  # which hides them
