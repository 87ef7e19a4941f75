"""Offline torch: annotated pictures in, sealed bundles out."""
