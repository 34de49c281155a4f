"""Pictures by URL: http, https and s3, from addresses that strangers send."""
