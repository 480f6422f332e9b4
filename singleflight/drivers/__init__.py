"""How a thread and how a task waits and runs. No policy."""
