"""Checkpoints: what a run must not lose. `folder`, `manifest` and `record` need no torch."""
