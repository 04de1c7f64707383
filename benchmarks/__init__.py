"""Measured against what a user would pick instead; ``python -m benchmarks.objectives`` and so on.

Every benchmark runs in one process on the framework that KERAS_BACKEND names, alternates the
candidates, reports medians, checks their results in the same run, prints a table, and writes JSON
to ``benchmarks/results/``. ``python docs/render.py`` puts those numbers into the documentation.
"""
