"""Checks of the Python package, run by `package_check.py`."""
