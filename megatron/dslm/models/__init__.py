"""BERT and GPT on megatron-core: how each is built, fed and scored."""
