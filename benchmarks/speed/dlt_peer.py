"""Load a list with dlt, with its defaults or tuned; run by the Python of dlt's environment.

    python dlt_peer.py channels|flows BASE_URL FOLDER default|tuned

The database is in DESTINATION__POSTGRES__CREDENTIALS. Tuned is what dlt's page about performance
offers for this case: CSV for COPY, two workers to normalize, four to load, larger buffers, files of
50,000 rows, no compression, no search for children where there are none; scenarios.py sets those
that are variables. Prints the records that it read: what dlt counts depends on the file format.
"""

# mypy: disable-error-code="import-not-found,untyped-decorator"

import json
import sys
from collections.abc import Iterator
from typing import Any

import dlt
from dlt.sources.helpers.rest_client import RESTClient
from dlt.sources.helpers.rest_client.paginators import (
    JSONLinkPaginator,
    JSONResponseCursorPaginator,
)

kind, base, folder, how = sys.argv[1:]
if kind == "channels":
    path, params, key = "/v1/Channels", {"PageSize": 1000}, "sid"
    paginator = JSONLinkPaginator(next_url_path="meta.next_page_url")
    selector, depth = "flex_chat_channels", 0
else:
    path, params, key = "/v2/contact_center/flows", {"page_size": 100}, "flow_id"
    paginator = JSONResponseCursorPaginator(
        cursor_path="next_page_token", cursor_param="next_page_token"
    )
    selector, depth = "flows", 1
read = 0
nesting = {"max_table_nesting": depth} if how == "tuned" else {}


@dlt.resource(name=kind, primary_key=key, write_disposition="merge", **nesting)
def records() -> Iterator[Any]:
    client = RESTClient(base_url=base)
    global read
    for page in client.paginate(path, params=params, paginator=paginator, data_selector=selector):
        read += len(page)
        yield page


pipeline = dlt.pipeline(
    pipeline_name=f"bench_{kind}", destination="postgres", dataset_name="peer", pipelines_dir=folder
)
pipeline.run(records(), **({"loader_file_format": "csv"} if how == "tuned" else {}))
print(json.dumps({"records": read}))
