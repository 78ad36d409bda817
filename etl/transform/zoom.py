"""Zoom's records → rows: a flow, its versions, its entry points."""

from etl.extract.page import Page
from etl.transform.rows import Rows
from etl.transform.values import items, last_of_each, no_list, no_rows, readable, reader
from etl.warehouse import tables

_CHILDREN = {
    "flow_versions": (tables.zoom_flow_versions, reader(tables.zoom_flow_versions)),
    "entry_points": (tables.zoom_entry_points, reader(tables.zoom_entry_points)),
}
_flow = reader(tables.zoom_flows, apart=_CHILDREN)


def flows(page: Page, start: int) -> Rows:
    """A page of `flows[]` → rows of zoom.flows, zoom.flow_versions, zoom.entry_points.

    `start` is the ordinal of the page's first record in the scan. Every row begins with the ordinal
    of its record; a row of zoom.flows goes on with whether a child of it could not be read.
    """
    rows = no_rows(tables.zoom_flows, tables.zoom_flow_versions, tables.zoom_entry_points)
    for index, record, row in readable("flow", page.records, _flow, (), rows):
        ordinal, flow_id, partial = start + index, row[0], False
        for member, (table, read) in _CHILDREN.items():
            children = items(record, member)
            if children is None:
                rows.rejects.append(no_list(f"flow {flow_id}", record, member))
            what = f"{member} of flow {flow_id}"
            found = [child for _, _, child in readable(what, children or (), read, row[:1], rows)]
            partial |= children is None or len(found) < len(children)
            rows.tables[table.fullname] += [(ordinal, *r) for r in last_of_each(found, 2)]
        rows.tables["zoom.flows"].append((ordinal, partial, *row))
    return rows
