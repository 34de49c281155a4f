"""Times of frames: when they were captured, and when they are to be delivered."""
