"""What the studies share: statistics, training loops, data, pictures, the page."""
