"""One file per resource; a route asks `deps` for what it needs and answers in a few lines."""
