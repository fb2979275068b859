"""Every test of this folder that needs an engine runs on both."""

from tests.node.engines import engine, pytest_generate_tests

__all__ = ["engine", "pytest_generate_tests"]
