"""RTSP between FFmpeg and a camera: relayed, so that redirects and logins are this program's and not FFmpeg's."""
