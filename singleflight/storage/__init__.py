"""Values, their ages, who expires and who is evicted."""
