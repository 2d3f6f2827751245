"""What samples and models are worth, with a null beside every score."""
