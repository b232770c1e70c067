"""The night-batch story on the day on which summer time begins and the two before it; `bench night` runs a month."""

from fairlead.bench import night

TWO_DAYS_BEFORE_SUMMER_TIME = 25


def test_serving_has_its_gpus_every_morning_and_would_not_without_protection() -> None:
    held = night.run(3, first=TWO_DAYS_BEFORE_SUMMER_TIME)
    assert [(day.date, day.hours) for day in held.days] == [
        ("2027-03-26", 24),
        ("2027-03-27", 24),
        ("2027-03-28", 23),
    ]
    assert held.late_days == 0, held.days
    assert held.returned > 0, "nothing was lent, so nothing was shown"
    open_to_all = night.run(3, first=TWO_DAYS_BEFORE_SUMMER_TIME, protected=False)
    assert open_to_all.late_days > 0, open_to_all.days
    assert open_to_all.returned == 0
    assert held.batch_gpu_hours > 0.8 * open_to_all.batch_gpu_hours, "the night is still of use to batch"
