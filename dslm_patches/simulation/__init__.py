"""Monte-Carlo estimates of the moments that `dslm_patches.theory` predicts, each with a standard error (torch)."""
