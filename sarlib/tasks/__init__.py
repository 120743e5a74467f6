"""What is learned: the head, the target, the loss and the metrics of a run."""
