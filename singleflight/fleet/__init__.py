"""What processes share, without I/O, threads or clocks: keys and values as bytes, and the policy."""
