"""Read instances with Alibaba Cloud's own client, and print what it found; run where it is.

It gets {"url", "key", "secret", "token", "instances", "page_size"} as its first argument, in JSON.
"""

import json
import sys
from typing import Any

from alibabacloud_ccc20200701 import models
from alibabacloud_ccc20200701.client import Client
from alibabacloud_tea_openapi.exceptions import AlibabaCloudException
from alibabacloud_tea_openapi.utils_models import Config


def main() -> None:
    given = json.loads(sys.argv[1])
    client = Client(
        Config(
            access_key_id=given["key"],
            access_key_secret=given["secret"],
            security_token=given["token"],
            endpoint=given["url"].removeprefix("http://"),
            protocol="HTTP",
        )
    )
    lists = {
        "contact_flows": (client.list_contact_flows, models.ListContactFlowsRequest),
        "phone_numbers": (client.list_phone_numbers, models.ListPhoneNumbersRequest),
    }
    found: dict[str, Any] = {}
    for name, (call, request) in lists.items():
        try:
            found[name] = [
                row
                for instance in given["instances"]
                for row in rows(call, request, instance, given["page_size"])
            ]
        except AlibabaCloudException as error:
            found[name] = {"status": error.status_code, "code": error.code}
    json.dump(found, sys.stdout)


def rows(call: Any, request: Any, instance: str, size: int) -> list[dict[str, Any]]:
    """Return the rows of all pages, in the names of the wire."""
    found: list[dict[str, Any]] = []
    for number in range(1, 1000):
        answer = call(request(instance_id=instance, page_number=number, page_size=size))
        data = answer.body.data
        found += [row.to_map() for row in data.list or []]
        if len(found) >= data.total_count or not data.list:
            break
    return found


if __name__ == "__main__":
    main()
