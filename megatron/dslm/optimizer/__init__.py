"""megatron-core's optimizer and learning-rate schedule: how they are built, and what a step asks of them."""
