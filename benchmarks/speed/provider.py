"""Serve lists of prepared records as the providers' APIs do, at a cost that does not count.

    python -m benchmarks.speed.provider FOLDER

Prints its port. The first part of a path is a folder in FOLDER, so each list is an account at its
own base URL; `slow-150` before it delays every answer by 150 ms. Credentials, signatures and
page sizes above the maximum are not checked: tests/sandbox has servers that do.

    /NAME/v1/Channels                    Twilio: `meta.next_page_url`
    /NAME/v2/contact_center/flows        Zoom: `next_page_token`, `total_records`
    /NAME/oauth/token                    Zoom: an access token
    /NAME/?InstanceId=…&PageNumber=…     Alibaba: `TotalCount`; the records are in NAME/INSTANCE
"""

import json
import socketserver
import sys
import time
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from urllib.parse import parse_qsl, urlencode

from benchmarks.speed.lists import Records

Query = Mapping[str, str]
Piece = bytes | memoryview


class Provider(socketserver.ThreadingTCPServer):
    """A thread for each connection, which lives as long as its client likes."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Connection)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.records = cache(lambda name: Records(folder / name))


class Connection(socketserver.StreamRequestHandler):
    server: Provider
    disable_nagle_algorithm = True

    def handle(self) -> None:
        while line := self.rfile.readline():
            length = 0
            while len(header := self.rfile.readline()) > 2:
                if header[:15].lower() == b"content-length:":
                    length = int(header[15:])
            self.rfile.read(length)
            status, pieces = self._answer(line.split()[1].decode())
            size = sum(len(piece) for piece in pieces)
            head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\n"
            self.wfile.write(f"{head}Content-Length: {size}\r\n\r\n".encode())
            for piece in pieces:
                self.wfile.write(piece)

    def _answer(self, target: str) -> tuple[str, list[Piece]]:
        path, _, query = target.partition("?")
        parts = path.strip("/").split("/")
        if parts[0].startswith("slow-"):
            time.sleep(int(parts[0][5:]) / 1000)
        place = 2 if parts[0].startswith("slow-") else 1
        answer = ANSWERS.get("/".join(parts[place:]))
        if answer is None:
            return "404 Not Found", [b'{"message":"no such list"}']
        asked = dict(parse_qsl(query))
        return "200 OK", answer(self.server.records, parts[place - 1], asked,
                                self.server.url + path)  # fmt: skip


def channels(records: Callable[[str], Records], name: str, asked: Query, url: str) -> list[Piece]:
    page, size = int(asked.get("Page", 0)), int(asked["PageSize"])
    found = records(name)
    more = (page + 1) * size < found.count
    following = urlencode({"PageSize": size, "Page": page + 1, "PageToken": f"PT{page + 1}"})
    meta = {
        "page": page,
        "page_size": size,
        "url": url,
        "next_page_url": f"{url}?{following}" if more else None,
        "key": "flex_chat_channels",
    }
    rows = found.window(page * size, (page + 1) * size)
    return [b'{"flex_chat_channels":[', rows, f'],"meta":{json.dumps(meta)}}}'.encode()]


def flows(records: Callable[[str], Records], name: str, asked: Query, url: str) -> list[Piece]:
    size, start = int(asked["page_size"]), int(asked.get("next_page_token", 0))
    found = records(name)
    envelope = {
        "next_page_token": str(start + size) if start + size < found.count else "",
        "page_size": size,
        "total_records": found.count,
    }
    head = json.dumps(envelope)[:-1] + ', "flows":['
    return [head.encode(), found.window(start, start + size), b"]}"]


def token(records: Callable[[str], Records], name: str, asked: Query, url: str) -> list[Piece]:
    scope = "contact_center:read:list_flows:admin contact_center:read:flow:admin"
    answer = {"access_token": "static", "token_type": "bearer", "expires_in": 3600, "scope": scope}
    return [json.dumps(answer).encode()]


def contact_flows(
    records: Callable[[str], Records], name: str, asked: Query, url: str
) -> list[Piece]:
    if asked.get("SortOrder") != "ASC" or "Type" in asked:
        raise ValueError(f"the benchmark's lists are read oldest first and whole: {asked}")
    page, size = int(asked["PageNumber"]), int(asked["PageSize"])
    found = records(f"{name}/{asked['InstanceId']}")
    head = (
        '{"Code":"OK","HttpStatusCode":200,"Message":"","RequestId":"static","Data":{'
        f'"PageNumber":{page},"PageSize":{size},"TotalCount":{found.count},"List":['
    )
    return [head.encode(), found.window((page - 1) * size, page * size), b"]}}"]


ANSWERS = {
    "v1/Channels": channels,
    "v2/contact_center/flows": flows,
    "oauth/token": token,
    "": contact_flows,
}

if __name__ == "__main__":
    with Provider(Path(sys.argv[1])) as provider:
        print(provider.server_address[1], flush=True)
        provider.serve_forever()
