"""Measurements against the alternatives that a user has; ``python -m benchmarks.objectives``, ...

Every benchmark runs in one process on the framework that KERAS_BACKEND names. It times the
candidates in turn, reports medians, checks the results in the same run, prints a table, and writes
JSON to ``benchmarks/results/``. ``python docs/render.py`` copies the numbers into the documents.
"""
