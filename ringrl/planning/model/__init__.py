"""Closed-form estimates of a plan, without a compiler: parameters, memory, work and communication."""
