"""`make bench`: every figure is a ratio of two things measured in one run, turn by turn."""
