"""Training: optimiser and EMA, distributed strategies, resuming, tracking, and the training loop, for every model family."""
