"""The planted corpus: face video and voice made by a law, so that what is learned can be checked."""
