"""Detection and synthesis over HTTP: limits, problem documents, metrics. No torch."""
