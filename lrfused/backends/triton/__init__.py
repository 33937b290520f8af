"""The Triton backend: measure, plan and apply for any GPU. Its kernels are imported when used."""
