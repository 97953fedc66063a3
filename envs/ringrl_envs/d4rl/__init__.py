"""D4RL's environments with D4RL's own observations, on today's MuJoCo, so that policies of its files can be scored."""
