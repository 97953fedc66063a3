"""Strict numerics for every test."""

import os

os.environ.setdefault("MUJOCO_GL", "disable")

import jax

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
