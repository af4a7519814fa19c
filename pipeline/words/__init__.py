"""What was said and when: files of words with their times, and which word is spoken at a frame."""
