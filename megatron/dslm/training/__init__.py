"""The training loop: steps, evaluation, and the whole run from arguments to the last checkpoint."""
