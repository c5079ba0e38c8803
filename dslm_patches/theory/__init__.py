"""Closed-form signal propagation of transformer components: numpy only, no process groups, no megatron."""
