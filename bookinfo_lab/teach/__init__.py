"""Exercises and their checks, progress, and the command that cuts a learner's notebooks from the solutions."""
