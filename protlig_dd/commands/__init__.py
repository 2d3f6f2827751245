"""What each subcommand of `protlig` does: small functions that yield the lines to print."""
