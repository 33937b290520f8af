"""state_dict and load_state_dict: format, validation, loading."""
