"""A file to frames and samples on one clock."""
