"""What a pool keeps free, as a CRD, a document and a scenario say it: three ways to one Pool; refusals are named."""

from typing import Any

import msgspec
import pytest
import yaml

from fairlead.errors import UnreadableInput
from fairlead.model.codec import decode, encode
from fairlead.model.events import PoolSeen
from fairlead.model.gang import ServiceClass
from fairlead.model.protection import Protection, Spares
from fairlead.model.service_classes import Borrows, OwnTerms
from fairlead.model.tenancy import Pool
from fairlead.simulation import gangjob_yaml, scenario_file
from fairlead.timezones import window_of
from fairlead_operator.custom_objects import PoolObject
from fairlead_operator.decode_pools import decode_pool

WORDS: dict[str, Any] = yaml.safe_load("""
protected:
- gpus: 48
  redundancy: 8
  unitGpus: 8
  lead: 45m
  returnWithin: 10m
  lendGpus: 16
  windows:
  - {days: [mon, fri], from: "07:00", to: "20:00", timeZone: Europe/Berlin}
  - {from: "22:00", to: "02:00"}
- {serviceClass: interactive, gpus: 4}
ceilingPercent: 70
spares: {warmGpus: 2, hotNodes: 1}
classTerms: [{serviceClass: batch, borrows: never}]
""")


def from_crd(words: dict[str, Any]) -> Pool:
    document = {"metadata": {"name": "p"}, "spec": {"nodeSelector": {"a": "b"}, **words}}
    return decode_pool(msgspec.convert(document, PoolObject))


def from_document(words: dict[str, Any]) -> Pool:
    pool = {"apiVersion": "fairlead.dev/v1alpha1", "kind": "Pool", "metadata": {"name": "p"}}
    text = yaml.safe_dump({**pool, "spec": {"nodeSelector": {"a": "b"}, **words}})
    return gangjob_yaml.read(text, now_ms=0, new_id=lambda _, name: name).pools[0]


def from_scenario(words: dict[str, Any]) -> Pool:
    document = {"fleet": {"pools": [{"name": "p", **words}], "nodes": [{"name": "n1"}]}}
    return scenario_file.read_document(document).pools[0]


@pytest.mark.parametrize("read", [from_crd, from_document, from_scenario])
def test_three_ways_to_say_it_are_one_pool(read):
    found = read(WORDS)
    assert found.protected == (
        Protection(
            gpus=48,
            redundancy=8,
            unit_gpus=8,
            lead_ms=45 * 60_000,
            return_within_ms=600_000,
            lend_gpus=16,
            windows=(
                window_of(("mon", "fri"), "07:00", "20:00", "Europe/Berlin", field=""),
                window_of(None, "22:00", "02:00", "UTC", field=""),
            ),
        ),
        Protection(service_class=ServiceClass.INTERACTIVE, gpus=4),
    )
    assert found.ceiling_percent == 70
    assert found.spares == Spares(warm_gpus=2, hot_nodes=1)
    assert found.class_terms == (OwnTerms(service_class=ServiceClass.BATCH, borrows=Borrows.NEVER),)
    assert found.protected[0].amount == 56


def test_the_journal_keeps_the_windows_with_their_offsets() -> None:
    fact = PoolSeen(pool=from_crd(WORDS), at_ms=1)
    assert decode(encode(fact)) == fact
    assert len(encode(fact)) < 4_000


def one(**more: object) -> dict[str, Any]:
    return {"protected": [{"gpus": 8, **more}]}


BERLIN = {"from": "07:00", "to": "20:00", "timeZone": "Europe/Berlin"}


@pytest.mark.parametrize("read", [from_crd, from_document, from_scenario])
@pytest.mark.parametrize(
    ("words", "says"),
    [
        (one(gpus=0), "protected[0].gpus: 0 is outside 1.."),
        (one(redundancy=-1), "protected[0].redundancy: -1 is outside 0.."),
        (one(unitGpus=65), "protected[0].unitGpus: 65 is outside 1..64"),
        (one(lendGpus=9), "protected[0].lendGpus: 9 is outside 0..8, which is gpus and redundancy together"),
        (one(returnWithin="30s"), "protected[0].returnWithin: nobody has gone sooner than 1m"),
        (one(returnWithin="soon"), "protected[0].returnWithin: 'soon'"),
        (one(lead="200h"), "protected[0].lead: is outside 1s..168h"),
        (one(lead="5m", returnWithin="10m", windows=[BERLIN]), "protected[0].returnWithin: is longer than lead"),
        (one(windows=[BERLIN] * 17), "protected[0].windows: has 17; at most 16"),
        (one(windows=[{**BERLIN, "timeZone": "Mars/Base"}]), "protected[0].windows[0].timeZone: there is no time zone"),
        (one(windows=[{**BERLIN, "to": "7"}]), "protected[0].windows[0].to: '7' is no time of a day"),
        (one(windows=[{**BERLIN, "days": ["someday"]}]), "protected[0].windows[0].days: 'someday' is not one of"),
        (one(serviceClass="vip"), "protected[0].serviceClass: 'vip' is not one of"),
        ({"ceilingPercent": 100}, "ceilingPercent: 100 is outside 1..99"),
        ({"spares": {}}, "spares.warmGpus: says nothing"),
        ({"spares": {"hotNodes": -1}}, "spares.hotNodes: -1 is outside 0..100000"),
        ({"classTerms": [{"serviceClass": "batch", "borrows": "often"}]}, "borrows: 'often' is not one of"),
        ({"classTerms": [{"serviceClass": "batch", "borrows": "never"}] * 2}, "serviceClass: batch stands there twice"),
    ],
)
def test_what_cannot_be_kept_is_refused_with_its_field(read, words, says):
    with pytest.raises(UnreadableInput) as error:
        read(words)
    assert says in str(error.value)


def test_dynamic_mig_beside_mps_is_refused_wherever_it_is_said() -> None:
    words = {"sharing": ["mps", "mig"], "mig": "dynamic"}
    for read in (from_document, from_scenario):
        with pytest.raises(UnreadableInput, match="mig: the driver has either dynamic MIG or MPS"):
            read(words)
