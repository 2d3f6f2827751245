"""Scores of samples and models, each with a null."""
