"""Who is working on which trial or run: one at a time, and what the dead leave is taken over."""
