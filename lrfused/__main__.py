"""`python -m lrfused`: which backends there are, and why not the others."""

from lrfused.info import info

print(info())
