"""Label files to one row a frame, for any corpus."""
