"""`python -m lrfused`: prints versions and backends, with reasons for those not available."""

from lrfused.backends.info import info

print(info())
