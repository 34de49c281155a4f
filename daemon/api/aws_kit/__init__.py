"""`POST /face_detection`, compatible with the AWS AI Solution Kit."""
