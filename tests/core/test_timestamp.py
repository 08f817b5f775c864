"""The time as files hold it, against datetime."""

from datetime import UTC, datetime, timedelta

from irm_lite.core.timestamp import now


def test_the_time_is_utc_with_seconds() -> None:
    moment = datetime.fromisoformat(now())
    assert moment.utcoffset() == timedelta(0)
    assert abs(datetime.now(UTC) - moment) < timedelta(minutes=1)
    assert moment.microsecond == 0
