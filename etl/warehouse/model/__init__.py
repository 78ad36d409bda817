"""The schema `callflow`: one model of flows across all providers, for analysts and BI tools.

contract.py   the views, their columns and comments: what users may rely on
lists.py      what providers declare for single questions
part.py       what a provider's declaration adds to a view
assemble.py   the SQL of the views, of their histories, and of `<view>_at(timestamptz)`
moment.py     `callflow.at`: the moment as of which the views answer
changes.py    what counts as a change of a flow, over the versions that a `span.py` chooses
questions.py  the views that answer a question each: `flow_questions.py`, about what is there,
              `binding_questions.py`, about what leads where, `activity_questions.py`, about what
              happened
"""
