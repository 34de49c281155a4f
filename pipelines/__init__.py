"""The way of a frame: source, sampler, batcher, detector, tracker, analyzer, outputs."""
