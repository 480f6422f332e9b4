"""Keys, who has them, and who waits for whom."""
