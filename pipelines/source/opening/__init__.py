"""Opening a source: which demuxer, decoder and options, and sources of single pictures."""
