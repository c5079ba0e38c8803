"""The `dslm` command: what the theory says, without building a model or starting process groups."""
