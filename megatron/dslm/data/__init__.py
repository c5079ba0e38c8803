"""Text, tokenizers and datasets: from articles to what the training loop reads."""
