"""What tests of the Triton backend start from."""

from lib.rules_for_steps import rule  # noqa: F401 (a fixture)
