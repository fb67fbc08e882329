"""What schemathesis can't take from the API's description: texts of the formats that are tally's own, what
fields of one request have to do with each other, and what must stay for the requests that follow."""

import datetime
import itertools
import json
import os

import schemathesis
from hypothesis import strategies as st

NOW = datetime.datetime.now(datetime.timezone.utc)
WORD = st.text(alphabet="abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_. üñ漢", min_size=1, max_size=40)
LINE = WORD.map(lambda text: "x" + text)
DECIMAL = st.one_of(
    st.sampled_from(["0", "99.99", "1e2", "0.000001", "999999999999.999999"]),
    st.decimals(min_value=0, max_value=999_999_999_999, places=6, allow_nan=False).map(lambda value: f"{value:f}"),
)
CLICK = st.integers(1, 2**53 - 1).map(str)
HOST = st.from_regex(r"[a-z][a-z0-9]{0,20}\.example", fullmatch=True)
PATH = st.from_regex(r"(/[a-zA-Z0-9_.~-]{0,12}){0,3}", fullmatch=True)
URL = st.builds("https://{}{}".format, HOST, PATH)
TOLD = "https://127.0.0.1:1/hook"
KEYS = itertools.count()

FIELDS = st.fixed_dictionaries(
    {"postback_token": st.just(os.environ["TALLY_TOKEN"]), "value": DECIMAL},
    optional={"order_id": LINE, "click_id": CLICK, "utm_source": LINE},
).map(json.dumps)

for name, strategy in {
    "decimal": DECIMAL,
    "click-id": CLICK,
    "click-number": CLICK,
    "link-number": st.just(os.environ["TALLY_LINK_ID"]),
    "order-id": LINE,
    "single-line": LINE,
    "iso-4217": st.sampled_from(["USD", "eur", "JPY", "Chf"]),
    "ip-address": st.one_of(st.ip_addresses().map(str), st.just("203.0.113.7")),
    "time-zone": st.sampled_from(["UTC", "Europe/Berlin", "Asia/Kolkata", "America/New_York"]),
    "date-or-time": st.integers(1, 300).map(lambda days: (NOW - datetime.timedelta(days=days)).date().isoformat()),
    "goal-list": st.just(f"{os.environ['TALLY_GOAL_ID']},1"),
    "span-of-time": st.sampled_from(["60", "90s", "30m", "12h", "7d", "90d"]),
    "conversion-id": st.uuids().map(str),
    "web-url": PATH.map(lambda path: TOLD + path),
    "web-destination": st.builds("{}?cid={}".format, URL, st.sampled_from(["{click_id}", "{sub1}", "1", "{utm_source}"])),
    "json": FIELDS,
    "ndjson": st.lists(FIELDS, min_size=2, max_size=20).map("\n".join),
    # No further back than clicks are kept.
    "date-time": st.integers(60, 300 * 86_400).map(
        lambda seconds: (NOW - datetime.timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")
    ),
}.items():
    schemathesis.openapi.format(name, strategy)


@schemathesis.serializer("application/x-ndjson")
def ndjson(context, value):
    """Lines are text; what is none is no line."""
    return value.encode() if isinstance(value, str) else b""


@schemathesis.hook
def before_load_schema(context, raw_schema):
    """Whoever is to be told is looked up, which may take seconds; this address refuses at once."""
    raw_schema.update(json.loads(json.dumps(raw_schema).replace("https://shop.example/hook", TOLD)))


# What the other requests need: the account that they belong to, the goal and the link that they name.
KEPT = {
    "/api/v1/accounts/{id}": "1",
    "/api/v1/conversions/goals/{id}": os.environ["TALLY_GOAL_ID"],
    "/api/v1/links/{id}": os.environ["TALLY_LINK_ID"],
}


@schemathesis.hook
def filter_case(context, case):
    """Leaves what is needed as it is: changes and deletions are tried on the others."""
    for path, kept in KEPT.items():
        if case.operation.path.startswith(path) and str(case.path_parameters.get("id")) == kept:
            return case.method == "GET"
    return True


@schemathesis.hook
def map_case(context, case):
    """What JSON Schema can't say of requests that it allows."""
    if case.meta and case.meta.generation.mode.is_positive:
        if isinstance(case.body, dict):
            tidy(case.body)
            if "/track" in case.operation.path:
                own(case.body)
        agree(case.query or {})
    return case


@schemathesis.hook
def before_call(context, case, kwargs):
    """An Idempotency-Key stands for one call, also one of the examples; and the API key that all others are made with stays."""
    if "{key_id}" in case.operation.path and str(case.path_parameters.get("key_id")) == "1":
        case.path_parameters["key_id"] = 4_000_000
    positive = case.meta is None or case.meta.generation.mode.is_positive
    if positive and case.headers and "Idempotency-Key" in case.headers:
        case.headers["Idempotency-Key"] = f"key-{next(KEYS)}"


def tidy(fields):
    """A float is no multiple of a millionth, so a schema can't ask for six digits after the point; 1.0 is an integer to it,
    and none to tally; objects of a list can't be unique by one of their fields; and a link must be there, a time after
    another."""
    for name, value in fields.items():
        if isinstance(value, float):
            fields[name] = int(value) if value.is_integer() else round(value, 6)
        elif name == "link_id" and value is not None:
            fields[name] = os.environ["TALLY_LINK_ID"]
        elif name == "variants" and isinstance(value, list):
            for number, variant in enumerate(value):
                variant["name"] = f"{variant['name'][:100]}{number}"
                tidy(variant)
        elif isinstance(value, dict):
            tidy(value)
    if "from" in fields and "to" in fields:
        fields["from"], fields["to"] = "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"


def own(hit):
    """A hit that tells of no sale has no names that are not known: with them it is another system's."""
    if not {"value", "order_id", "click_id"} & hit.keys():
        for name in set(hit) - {"postback_token", "currency", "ip", "user_agent", "converted_at"}:
            del hit[name]


def agree(query):
    """A period is said in one way, has not too many hours, and ends after its start; a cursor is one that was answered."""
    for answered in ("cursor", "after"):
        query.pop(answered, None)
    if "days" in query or query.get("interval") == "hour" or not {"from", "to"} <= query.keys():
        query.pop("from", None), query.pop("to", None)
    if query.get("interval") == "hour":
        query["days"] = 30
    if "from" in query:
        query["from"], query["to"] = "2026-01-01", "2026-01-21T12:00:00Z"
