"""Where a person's (or a script's) commands come from."""
