"""Label files to one row per frame, for any corpus."""
