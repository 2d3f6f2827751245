"""Synthetic worlds whose law is known: the textbook pairs of the demo and a Markov chain."""
