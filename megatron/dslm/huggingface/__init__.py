"""Between Hugging Face folders and Megatron: the arguments of a folder's model, and its weights for any layout."""
