"""Training: optimiser and EMA, processes, checkpoints, tracking, and the loop. Knows no science."""
