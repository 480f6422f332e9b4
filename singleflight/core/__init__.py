"""The decision maker: what a call does next, and how a flight changes. No waiting, no I/O."""
