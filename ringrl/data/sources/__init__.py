"""Sources of episodes, one file per format."""
