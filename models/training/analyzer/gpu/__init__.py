"""The analyzer's training on a GPU that is lent for minutes: samples are composed there, beside the networks."""
