"""The four networks and their critics."""
