"""state_dict and load_state_dict: what travels, in which form, and what is refused."""
