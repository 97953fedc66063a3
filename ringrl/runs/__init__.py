"""What a run is made of, on and off the command line: its agent, its batches, its record, and how it acts."""
