"""The schema `callflow`: one model of flows across all providers, for analysts and BI tools.

contract.py   the views, their columns and comments: what users may rely on
part.py       what a provider's declaration adds to a view
assemble.py   the SQL of the views, of their histories, and of `<view>_at(timestamptz)`
moment.py     `callflow.at`: the moment as of which the views answer
questions.py  the views that answer a question each: `flow_questions.py`, about what is there, and
              `activity_questions.py`, about what happened
"""
