"""`POST /face_detection` in the shape of the AWS AI Solution Kit."""
