"""Scaling laws: which runs to make, what their losses say about size and data, and when they say nothing."""
