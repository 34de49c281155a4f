"""What NVIDIA GPUs need besides ONNX Runtime's sessions: devices, CUDA graphs, TensorRT's engines."""
