"""One video: frames and sound to the arrays of a trial."""
