"""The parts of a run, for command line and library: its agent, its batches, its metadata, and its policy."""
