"""
Times of a crontab, in UTC.

Rule of the file: the library knows what a crontab means; it is imported where it is needed.
"""

from __future__ import annotations

from datetime import UTC, datetime

from stream_monitor.errors import InputError


def last_before(schedule: str, now_ms: int) -> int | None:
    """
    The last time of a crontab that is not after now, ms since 1970; None if it never is.

    Raises
    ------
    InputError
        It is no crontab, or the extra is not installed.

    Examples
    --------
    >>> last_before("0 3 * * 1", 1_760_000_000_000)  # Thursday, so the Monday before
    1759719600000
    """
    try:
        from cronsim import CronSim, CronSimError
    except ImportError:
        raise InputError(
            "a schedule needs the extra: pip install 'model-stream-monitor[lifecycle]'"
        ) from None
    after = datetime.fromtimestamp(now_ms // 1_000 + 1, UTC)  # what is sought is before it
    try:
        found: datetime = next(CronSim(schedule, after, reverse=True))
    except CronSimError:
        raise InputError(
            f"`schedule` must be minute, hour, day, month, weekday, not {schedule!r}"
        ) from None
    except StopIteration:
        return None
    return int(found.timestamp() * 1_000)
