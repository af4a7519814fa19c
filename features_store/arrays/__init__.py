"""A trial's arrays on disk: written whole with checksums, opened lazily, read shard by shard."""
