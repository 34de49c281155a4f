"""The HTTP server below the APIs: listening, access, limits, the request log, problem details."""
