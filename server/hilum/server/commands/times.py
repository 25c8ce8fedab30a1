"""Times as an admin reads them, in UTC."""

import datetime as dt


def day(seconds: float) -> str:
    """Return the day of a time in seconds since 1970."""
    return dt.datetime.fromtimestamp(seconds, dt.UTC).strftime("%Y-%m-%d")


def minute(seconds: float) -> str:
    """Return day and minute of a time in seconds since 1970."""
    return dt.datetime.fromtimestamp(seconds, dt.UTC).strftime("%Y-%m-%d %H:%M UTC")
