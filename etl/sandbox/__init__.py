"""The sandbox: the three providers' APIs, emulated over real HTTP on this machine.

    server.py     start and stop all three; the text of a callflow.toml for them
    zoom.py       ┐
    twilio.py     ├ one provider each: its rows, its switches, request → response, its error answers
    alibaba.py    ┘
    signature.py  Alibaba's request signatures, as the receiver works them out
    store.py      records by key, changed by a test and listed page by page
    wire.py       sockets, the record of requests, and every fault: the only file that knows HTTP
    data.py       invented contact centres, seeded; rows that are awkward but legal

An emulator checks what the provider checks (token life, signature, clock, nonce, page tokens) and
answers as its documents say. What they leave open is a switch, named in the class's docstring.
"""
