"""What is kept of an answer, and told to others."""
