"""The pixels of frames, and how frames are to be shown."""
