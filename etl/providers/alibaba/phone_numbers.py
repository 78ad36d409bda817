"""Phone numbers of Alibaba Cloud CCC: which of them reach a flow, and which reach none."""

from functools import partial

from etl.extract import alibaba_numbers
from etl.providers.alibaba.contact_flows import DIGITS, FLOW, FLOWS
from etl.providers.alibaba.source import auth
from etl.providers.alibaba.tables import contact_flows, phone_numbers
from etl.providers.declare import Stream
from etl.transform.tree import tree
from etl.warehouse.model.part import Lookup, Part
from etl.warehouse.tables import family

PARTS = (
    Part(
        view="entry_points",
        table=phone_numbers,
        columns={
            "account_id": "r.instance_id",
            "flow_id": "nullif(r.contact_flow_id, '')",
            "entry_point_id": "r.number",
            "kind": "'phone'",
            "address": "split_part(r.number, '/', 1)",
            "address_key": DIGITS,
            "target_kind": "CASE WHEN r.contact_flow_id <> '' THEN 'flow'"
            " WHEN r.user_id <> '' THEN 'agent' END",
            "target": "coalesce(nullif(r.contact_flow_id, ''), nullif(r.user_id, ''))",
        },
        flows=FLOWS,
    ),
    Part(
        view="bindings",
        table=phone_numbers,
        where="r.contact_flow_id <> ''",
        columns={**FLOW, "entry_point_id": "r.number"},
        looked_up={"has_flows": "{flows}"},
        lookup=Lookup(
            "flows", contact_flows, on={"source": "r.source", "instance_id": "r.instance_id"}
        ),
    ),
    Part(
        view="unbound_numbers",
        table=phone_numbers,
        where="coalesce(r.contact_flow_id, '') = '' AND coalesce(r.user_id, '') = ''",
        columns={
            "account_id": "r.instance_id",
            "number_id": "r.number",
            "address": "split_part(r.number, '/', 1)",
            "address_key": DIGITS,
            "created_at": "r.create_time",
            "since": "r.valid_from",
        },
    ),
)

STREAM = Stream(
    name="phone_numbers",
    tables=family(phone_numbers),
    auth=partial(auth, action=alibaba_numbers.PHONE_NUMBERS),
    pages=alibaba_numbers.phone_numbers,
    transform=tree(phone_numbers, noun="phone number"),
    look_up=None,
    probe=alibaba_numbers.probe_phone_numbers,
    scope="instance_id",
    parts=PARTS,
    request_id="x-acs-request-id",
    optional=True,
)
