"""Many videos: which there are, what is missing, doing it, what it came to."""
