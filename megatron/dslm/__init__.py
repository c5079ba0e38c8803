"""Trainer for DeepScaleLM and other depth schemes on unmodified megatron-core."""
