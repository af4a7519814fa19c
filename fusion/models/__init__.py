"""The networks, one file a system; they open no files (a door: import from the leaf)."""
