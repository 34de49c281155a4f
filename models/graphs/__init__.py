"""What happens to a decoded frame on its device, as ONNX graphs: it is put on canvases, and faces are cut out of it."""
