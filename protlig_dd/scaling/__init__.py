"""Scaling laws: studies of runs on a grid of sizes and data, the laws fitted to them, and whether the runs determine these laws."""
