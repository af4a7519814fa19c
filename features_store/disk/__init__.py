"""Files that are whole or not there, on a local disk or behind a URL."""
