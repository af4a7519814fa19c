"""What needs both rooms: the pipeline, which fills a store, and the fusion, which learns from it."""
