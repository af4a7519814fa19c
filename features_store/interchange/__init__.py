"""A store in other formats and back; how files of results were made."""
