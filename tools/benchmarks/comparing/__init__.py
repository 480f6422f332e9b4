"""This library beside others: how long they take, and what they do where it matters."""
