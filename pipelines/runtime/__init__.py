"""What every stage uses: workers, metrics, limited logging, redaction."""
