"""Marks of tests whose simulator may be missing from this installation."""

import importlib.util

import pytest
from ringrl_envs.dmc.build import describe_install

needs_dm_control = pytest.mark.skipif(
    importlib.util.find_spec("dm_control") is None, reason=f"dm_control is not installed: {describe_install()}"
)
