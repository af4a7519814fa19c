"""Many jobs, in this process or on the workers of a cluster; knows nothing of videos or of training."""
