"""What becomes of the memory that a step gives back."""

import ctypes

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
"""Parameters of glibc's mallopt."""


def keep_freed_memory() -> bool:
    """Makes glibc keep freed memory for the next step.

    By default it returns blocks above 32 MB to the system at once, and the top of the heap: the kernel then zeroes tens
    of thousands of pages at every step, some 4 % of a small model's time. Peak memory grows by a few per cent.

    Returns:
        Whether it did: False where the C library has no mallopt (musl, macOS).
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return all([mallopt(_MMAP_MAX, 0), mallopt(_TRIM_THRESHOLD, 2**31 - 1), mallopt(_TOP_PAD, 1 << 26)])
