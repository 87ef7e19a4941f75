"""One loop, and what it is told to optimise."""
