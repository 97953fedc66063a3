"""What a plan needs and does by formula, with no compiler: parameters, memory, work and traffic."""
