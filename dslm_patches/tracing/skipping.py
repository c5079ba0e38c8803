"""What the tracer asks of a module that leaves out work which nobody looks at; imports nothing of a model's."""

from typing import Protocol, runtime_checkable


@runtime_checkable
class SkipsSite(Protocol):
    """A module that computes a site's tensor in part or not at all, unless it is told that somebody measures it.

    Any module with these two attributes is one: whoever writes it need not import the tracer.

    Attributes:
        skips_site: the tensor that it skips, by its name in `dslm_patches.tracing.names.COMPUTED`.
        in_full: whether it computes that tensor whole. The tracer sets it while it measures the site; the module's
            outputs and gradients must not depend on it, beyond the order of sums.
    """

    skips_site: str
    in_full: bool
