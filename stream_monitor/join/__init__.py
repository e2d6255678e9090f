"""
Where a label meets its prediction.

Rule of the package: a join is a fold of the rows of one partition of `observations`. `join` says
what meets, `store` how long rows stay, `waves` in which order rows of one id are taken, `ring`
where rows lie and how an id is found, and `ring_snapshot` how a ring is stored.

Theory of operation
-------------------
In go the rows of one record, predictions and labels as two tables of columns; `row` is the place in
the record. Out come which predictions are duplicates, the pairs that were completed, and counts of
what became of the labels.

Kept are four rings. `predictions` and `labels` hold every row until its time is over, also after it
has met: a retry is then still known as a duplicate, a later label corrects, and a label without a
version meets the predictions of several versions. `evicted_predictions` and `evicted_labels` hold
the ids of what had to leave while it waited. So a row that comes for one of them is counted as
lost, and not as an orphan.

The law is the result of taking the rows one by one in the order of the log. A loop in Python would
be far too slow for that, so `apply` finds the largest groups in which order does not matter:

1. Eviction happens at fixed places of the log (after every quarter of the limit), never at the end
   of a record. If rows may be beyond the limit, a record that goes past such a place is cut there
   (`_stretches`).
2. Of predictions with the same id, version and outcome of the call, all but the first are
   duplicates.
3. Rows of different ids do not affect each other. The k-th row of each id is in the k-th wave, so
   within a wave each id occurs once and everything is done for all rows at once. Nearly always
   every id occurs once in a record, and there is one wave.
4. In a wave a new prediction takes the greatest label that waits for it, and a new label goes to
   every prediction that waits for it, or corrects what they have.

The label with the greatest (event time, source partition, offset) wins. This order is a property of
the labels themselves, so it does not matter which one arrives first.

It must never happen that a result depends on how the log was cut into records, on the clock of this
machine, or on the layout of the index. Nor may a pair be completed twice, or a prediction that
waits leave without being counted.

Five rows of one id: a prediction, its label, a retry of the prediction, a later label, an earlier
one.

>>> import numpy as np
>>> from stream_monitor.join.join import Join
>>> from stream_monitor.join.rows import LabelRows, Predictions
>>> join = Join(limit=1_000, delay_ms=3_600_000)
>>> join.register(version=0, model=0, delay_ms=3_600_000)
>>> all_rows = {"version": np.zeros(5, int), "model": np.zeros(5, int), "segment": np.zeros(5, int)}
>>> all_rows |= {"row": np.arange(5), "id": np.full(5, 7, np.uint64), "failed": np.zeros(5, bool)}
>>> all_rows |= {"partition": np.zeros(5, int), "offset": np.arange(5), "own": np.full(5, -1)}
>>> all_rows |= {"score": np.full(5, 0.8), "probabilities": np.empty((5, 0))}
>>> all_rows |= {"time": np.array([0, 50, 0, 90, 60])}
>>> all_rows |= {"outcome": np.ones(5), "label": np.array([np.nan, 1.0, np.nan, 0.0, 1.0])}
>>> predictions = Predictions(**{name: all_rows[name][[0, 2]] for name in Predictions._fields})
>>> labels = LabelRows(**{name: all_rows[name][[1, 3, 4]] for name in LabelRows._fields})
>>> joined = join.apply(predictions, labels, now_ms=100)
>>> joined.duplicate.tolist()
[False, True]
>>> [(p.row.tolist(), p.label.tolist(), p.previous.tolist()) for p in joined.pairs]
[([1], [1.0], [nan]), ([3], [0.0], [1.0])]
>>> {what: n for what, n in joined.outcomes.items() if n}
{'matched': 1, 'corrected': 1, 'superseded': 1}

The retry is row 2 and is removed first. The waves are then rows 0, 1, 3 and 4: four rows of one id,
one after the other. With five ids, the same five rows would be one wave.
"""
