"""Pictures for people to look at: blurred faces, JPEG."""
