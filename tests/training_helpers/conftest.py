"""Small models, in several processes."""

from lib.threads import one_thread  # noqa: F401 (a fixture)
