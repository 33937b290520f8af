"""What is asked of a device without waiting: streams, copies, captures."""
