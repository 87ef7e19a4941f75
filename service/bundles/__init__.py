"""Which bundles are loaded, and how that changes while the service runs."""
