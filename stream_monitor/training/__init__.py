"""
Training data: what is kept of the stream, and what is made of it.

Rule of the package: rows are kept as they came, and joined when they are read. The libraries of the
extra `lifecycle` are imported where they are used.
"""
