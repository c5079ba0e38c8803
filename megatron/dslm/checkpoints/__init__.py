"""Checkpoints: what a run must not lose. `folder`, `manifest` and `saved_arguments` need no torch."""
