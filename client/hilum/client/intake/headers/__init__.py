"""From the first bytes of a file to typed facts of it."""
