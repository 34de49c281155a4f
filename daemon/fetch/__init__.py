"""Fetching pictures by URL (http, https, s3), where clients that are not trusted choose the URL."""
