"""The sandbox: the providers' APIs, emulated over real HTTP on this machine.

    server.py     EMULATORS, the list of all; start and stop them; the text of a callflow.toml
    NAME.py       one provider: its records, its switches, request → response, its error answers
    NAME_data.py  that provider's records: invented ones, and odd ones that its documents allow
    alibaba_gateway.py, signature.py  Alibaba's signatures, as the receiver checks them
    twilio_lists.py    Twilio's lists, and the two forms of a page
    twilio_studio.py, twilio_studio_data.py  Studio flows: their revisions, what is published
    twilio_numbers.py, twilio_bindings_data.py  addresses and telephone numbers
    store.py      records by key, changed by a test and listed page by page; page tokens
    data.py       words, telephone numbers and times that all invented records are made of
    exchange.py   a request and its answer, as values
    faults.py     what can go wrong with an answer
    wire.py       the only file that knows sockets: receives, records, spoils and sends

An emulator checks what the provider checks (token lifetime, signature, clock, nonce, page tokens)
and answers as the provider's documents say. What they leave open is a switch, described in the
class's docstring.
"""

from collections.abc import Mapping

PORT_OF: Mapping[str, int] = {"zoom": 8801, "twilio": 8802, "alibaba": 8803}
"""Each provider's name → the port of its emulator by default, in the order of the providers.

Not in server.py, because the help of `callflow sandbox` names them and needs no emulator.
"""
