"""Messages as bytes and topics: no sockets, no clock. The format is documented in `docs/wire.md`."""
