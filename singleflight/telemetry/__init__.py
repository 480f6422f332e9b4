"""What happened, as records and numbers."""
