"""
The two stages of a worker, with Kafka around the pure core. Here exactly-once is made.

Rule of the package: the core is a fold, so the state at a position of `observations` is a function
of the log up to there. A stage only has to make sure that each record is folded once, in order, and
that effects and position become durable together.

Theory of operation
-------------------
INGEST is at-least-once: rows of `predictions` and `labels` go to `observations`, packed, and may
come there twice. EVALUATE makes it exactly once, by three means:

1. Order. `Hub.deliver` passes a batch on only if it has the current epoch (the number of seeks of
   this worker) and starts where the last one ended. Otherwise the partition is opened again. So
   nothing is folded twice or skipped, whatever Faust and the consumer group do at a rebalance.
2. Repeats. For each source partition, every earlier row is in `observations` before any later one
   (the INGEST rule, at the head of `ingest_stage.py`). So EVALUATE needs one number for each
   source, the next expected offset, and drops every row below it (`outcomes.py`).
3. Effects. Alerts, a snapshot if one is due, and the position are one transaction of Kafka
   (`checkpoints.py`). Readers see all of it or nothing of it.

Opening a partition has one order: fence, read the committed position, restore, fold silently up to
the position, seek (`evaluate_stage.py`, `restoring.py`). The fence comes first, because afterwards
no former owner can commit anything. Without it, what is read might already be old.

After a timeout or an unknown error nobody knows whether a transaction was committed. Then state and
producer are thrown away and the partition is opened again, because only reading shows it. It must
never be tried again with the same state: effects could be written twice.

Five records of `observations`, each with one row of the same source, and a crash:

- Offset 0, source offset 0: folded. The next expected offset of the source is 1.
- Offset 1, source offset 1: folded. Accuracy falls below its limit, and an alert is in the outbox.
- A transaction commits the alert and the position 2.
- Offset 2, source offset 2: folded, and the worker is killed. Nothing of this was committed.
- Another worker fences and reads the position 2. It folds 0 and 1 again without output, so it has
  the state that was committed with the alert. It reads on from offset 2, which is folded for good.
- Offset 3, source offset 2: INGEST restarted too, and began again at its last commit. The next
  expected offset is 3, so the row is dropped.
- Offset 4, source offset 3: folded. The alert ends, and is committed with the position 5.

`docs/reliability.md` lists what happens at each fault. `tests/simulation` runs the stages on a
Kafka in memory with seeded faults, takes each of these rules away once, and must notice it.
"""
