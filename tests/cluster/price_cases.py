"""PriceBooks that the API refuses: by a rule, with its sentence, and by the schema."""

from cluster.api_objects import thing


def prices(name="eur", **words):
    price = {"model": "H100", "perHour": {"inQuota": "2.50"}, **words}
    return thing("PriceBook", name, currency="EUR", prices=[price])


def costs(**words):
    return thing("PriceBook", "eur", currency="EUR", costs=[{"model": "H100", **words}])


def fixed(**words):
    return thing("PriceBook", "eur", currency="EUR", fixed=[{"name": "security", "perMonth": "12000", **words}])


REFUSED = {
    "prices with a dot": (prices("e.ur"), "metadata.name is shown beside prices"),
    "prices that end first": (
        prices(**{"from": "2027-01-01T00:00:00Z", "to": "2027-01-01T00:00:00Z"}),
        "spec.prices[].to is not after from",
    ),
    "costs that end first": (
        costs(rental={"perHour": "2"}, **{"from": "2027-01-01T00:00:00Z", "to": "2027-01-01T00:00:00Z"}),
        "spec.costs[].to is not after from",
    ),
    "bought and rented": (
        costs(purchase={"price": "280000", "gpus": 8, "lifeMonths": 60}, rental={"perHour": "2"}),
        "spec.costs[].rental: GPUs that are rented are not bought too",
    ),
    "no cost": (costs(), "spec.costs[] says no cost"),
    "worth more at the end": (
        costs(purchase={"price": "9.5", "lifeMonths": 60, "residual": "10"}),
        "spec.costs[].purchase.residual is more than the price",
    ),
    **{
        f"{name} by the month and by the hour": (
            costs(**{name: {"perHour": "2", "perMonth": "1460"}}),
            f"spec.costs[].{name} is paid by the month or by the hour",
        )
        for name in ("rental", "networking", "storage", "engineering")
    },
    "fixed costs that end first": (
        fixed(**{"from": "2027-01-01T00:00:00Z", "to": "2027-01-01T00:00:00Z"}),
        "spec.fixed[].to is not after from",
    ),
}
MALFORMED = {
    "a rental by nothing": costs(rental={"gpus": 8}, power={"watts": 700, "perKwh": "0.2"}),
    "a PUE below one": costs(power={"watts": 700, "perKwh": "0.2", "pue": "0.9"}),
    "a purchase for ever": costs(purchase={"price": "280000"}),
    "a sum in words": fixed(perMonth="much"),
}
