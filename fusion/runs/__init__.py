"""Many runs: folds and seeds, here or on a cluster."""
