"""The fusion heads, one file each; they open no files."""
