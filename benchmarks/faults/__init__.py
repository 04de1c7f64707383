"""Faults on purpose: trainings that are killed, and files that are damaged.

``python -m benchmarks.faults`` runs all of it; ``docs/reliability.md`` shows what was found.
"""
