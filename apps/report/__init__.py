"""What happened, to look at: static pages of a store and its runs."""
