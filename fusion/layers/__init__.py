"""What heads are built of: TCN, cross-attention, dropout."""
