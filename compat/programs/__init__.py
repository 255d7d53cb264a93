"""Programs of others that make multiprocessing queues, run unedited with our queues and without.

``python -m compat.programs`` runs them all and compares what comes out.
"""
