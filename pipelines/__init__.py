"""The stages that a frame passes: source, sampler, batcher, detector, tracker, analyzer, outputs."""
