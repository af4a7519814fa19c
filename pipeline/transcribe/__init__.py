"""`avfuse transcribe`: speech to words with their times, one file a video."""
