"""What every room may use: errors, keys, messages, durations."""
