"""What a run says: summary at start, progress lines, TensorBoard."""
