"""Text, tokenizers and datasets: from JSON lines to what the training loop reads."""
