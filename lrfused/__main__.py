"""`python -m lrfused`: which backends there are, and why not the others."""

from lrfused.backends.info import info

print(info())
