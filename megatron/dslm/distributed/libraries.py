"""What every entry point does before it imports megatron-core."""

import logging
import os
import sys
import warnings
from types import TracebackType

_NOISE = (
    # megatron-core tells at each import what is not installed; the summary says which layers run.
    ".*Apex (is|are) not installed",
    # A default of megatron-core's own configuration, which nobody here set.
    "full scope is deprecated",
    # Calls that megatron-core makes of torch: collectives, and reading a checkpoint.
    r".torch\.distributed\.\w+. is deprecated",
    ".load_state_dict. is deprecated and will be removed",
    "Please use DTensor instead and we are deprecating ShardedTensor",
)
"""Beginnings of warnings, as regular expressions, that say nothing of a run."""
_NOISE_WITHOUT_GPU = (".*environment variable CUDA_DEVICE_MAX_CONNECTIONS",)


def prepare_libraries() -> None:
    """Call it before megatron-core is imported.

    Without a GPU the CPU runtime is installed, and megatron-core finds neither Transformer Engine nor Apex. What Python
    warns of and megatron-core logs is shown once, by the first rank, but for what is known to say nothing; errors are
    shown by all ranks. Ctrl-C while libraries are imported ends the program with one line.
    """
    sys.excepthook = _hook
    heard = _Once(logging.WARNING if os.environ.get("RANK", "0") == "0" else logging.ERROR)
    for logger in (logging.getLogger("py.warnings"), logging.getLogger("megatron.core")):
        logger.handlers, logger.propagate = [heard], False
    logging.captureWarnings(True)
    for message in _NOISE:
        warnings.filterwarnings("ignore", message=message)
    import dslm_patches.cpu

    if dslm_patches.cpu.install():
        for message in _NOISE_WITHOUT_GPU:
            warnings.filterwarnings("ignore", message=message)


def _hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        print(f"{os.path.basename(sys.argv[0])}: interrupted", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


class _Once(logging.Handler):
    """Writes a message to stderr the first time; Python's own memory of warnings is lost whenever filters change."""

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self._seen: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        message = self.format(record).rstrip()
        if message not in self._seen:
            self._seen.add(message)
            print(message, file=sys.stderr, flush=True)
