"""The HTTP API of what happened: events of the past and as they come, their pictures, and numbers."""
