"""What two processes of derma must agree on: words, messages, pixels, models."""

import os

__version__ = "0.1.0"

# OpenCV reads it at its import: a small file can hold a picture that takes gigabytes to decode
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(50_000_000))
# read by ONNX Runtime at its import: its official builds otherwise keep a device id and send events to Microsoft
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
