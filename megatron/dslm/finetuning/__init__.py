"""Fine-tuning runs: batches of a task's examples, evaluation, and the loop over epochs."""
