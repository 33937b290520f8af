"""What an optimizer is: its rule."""
