"""The Triton backend: measure, plan and apply for any GPU. Imported only when it is used."""
