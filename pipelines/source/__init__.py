"""Sources of frames (RTSP, HTTP, files, USB cameras), and the times of frames."""
