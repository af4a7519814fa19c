"""`avfuse transcribe`: speech to words with their times, one file per video."""
