"""One run: one fold, one seed."""
