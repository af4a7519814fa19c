"""What every command shares: options, settings file, streams, error texts. click, and no numbers."""
