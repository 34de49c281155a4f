"""Where frames come from: RTSP, HTTP, files and USB cameras, and their times."""
