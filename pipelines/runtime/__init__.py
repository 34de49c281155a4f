"""Helpers that all stages use: workers, metrics, limited logging, redaction, configuration."""
