"""
Experiments: which of two or more models is better, judged on the stream and right at every look.

Rule of the package: a fold of the log. The same rows in the same order give the same verdicts and
ids; a change of weights counts from its place in the log on.
"""
