"""Asynchronous use of a device: streams, copies, readback, CUDA graph capture."""
