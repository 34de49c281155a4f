"""Networks: weights and their manifest, sessions, pre- and post-processing."""

from __future__ import annotations

import os

# Before ONNX Runtime is imported: from 1.31 on it makes an id of this machine in the home folder, keeps a record of
# every session there, and sends it to Microsoft.
os.putenv("ORT_DISABLE_TELEMETRY", "1")
