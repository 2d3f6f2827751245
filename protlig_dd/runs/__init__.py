"""Runs: an experiment trained in a folder, opened, sampled, evaluated and exported."""
