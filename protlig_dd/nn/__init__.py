"""Network parts on packed tokens."""
