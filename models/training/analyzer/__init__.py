"""Training of the analyzer: labels, data, network, loss and measures. Needs PyTorch; labelling needs openvino."""
