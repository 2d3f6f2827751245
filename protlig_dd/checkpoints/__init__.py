"""Checkpoints and run folders on disk: our format, archives of other frameworks, the Hub."""
