"""From flags to a finished run: one experiment, its folder, and comparisons between runs."""
