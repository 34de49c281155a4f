"""Measuring and calibrating the analyzer, and the tables of its card."""
