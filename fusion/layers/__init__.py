"""What heads are built of: TCN, cross-attention, recurrences, dropout."""
