"""Where episodes come from: one file a format."""
