"""DeepScaleLM: depth scaling of transformers, put on megatron-core by small patches."""
