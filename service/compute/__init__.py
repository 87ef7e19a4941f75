"""Who may come in, who waits, and how the graphs are run for all of them."""
