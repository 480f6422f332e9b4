"""One call per key for many processes: this library and others on one server, and what is promised of it."""
