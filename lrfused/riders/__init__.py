"""What goes along in the pass, as users see it: masks and averages of the weights."""
