"""What a store says of itself: failures, expected trials, status, verification."""
