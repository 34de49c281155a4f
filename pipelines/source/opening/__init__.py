"""Opens sources: chooses demuxer, decoder and options, and wraps JPEGs over HTTP."""
