"""HTTP/2 by hand (RFC 9113, RFC 7541), as wrong as a test wants it."""
import socket
import ssl
import struct
import time

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED = 1, 1, 4, 8


def frame(kind, flags=0, stream=0, payload=b"", length=None):
    """`length`: what the header claims, if not the truth."""
    length = len(payload) if length is None else length
    return struct.pack(">I", length)[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def setting(name, value):
    return struct.pack(">HI", name, value)


def string(text):
    """A literal of HPACK, not Huffman-coded."""
    text = text if isinstance(text, bytes) else text.encode()
    return integer(len(text), 7) + text


def integer(value, prefix_bits, first=0):
    limit = (1 << prefix_bits) - 1
    if value < limit:
        return bytes([first | value])
    out, value = bytearray([first | limit]), value - limit
    while value >= 128:
        out.append(value % 128 + 128)
        value //= 128
    return bytes(out) + bytes([value])


def literal(name, value, *, indexed=False):
    return (b"\x40" if indexed else b"\x00") + string(name) + string(value)


def request_headers(path="/chorus.v1.Inference/Generate", *more):
    fields = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "localhost"), ("te", "trailers"),
              ("content-type", "application/grpc"), *more]
    return b"".join(literal(name, value) for name, value in fields)


def open_call(stream=1, flags=END_HEADERS, path="/chorus.v1.Inference/Generate", *more):
    return frame(HEADERS, flags, stream, request_headers(path, *more))


class Connection:
    """A socket that says what it likes. `tls`: an SSL context."""

    def __init__(self, port, tls=None):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_hostname="localhost")
        self._received = b""

    def greet(self):
        self.send(PREFACE + frame(SETTINGS))
        return self

    def send(self, data):
        """False if the other side has closed, or takes no more."""
        try:
            self.socket.sendall(data)
            return True
        except (ConnectionError, TimeoutError, ssl.SSLError):
            return False

    def frames(self, seconds):
        """Frames (kind, flags, stream, payload) until `seconds` pass without one, then None; at the end of the connection it ends."""
        while True:
            while len(self._received) >= 9:
                length = int.from_bytes(self._received[:3], "big")
                if len(self._received) < 9 + length:
                    break
                kind, flags, stream = struct.unpack(">BBI", self._received[3:9])
                yield kind, flags, stream, self._received[9:9 + length]
                self._received = self._received[9 + length:]
            try:
                self.socket.settimeout(seconds)
                more = self.socket.recv(1 << 16)
            except (TimeoutError, socket.timeout):
                yield None
                return
            except (ConnectionError, ssl.SSLError):
                return
            if not more:
                return
            self._received += more

    def is_cut(self, seconds):
        """True if the other side closes within `seconds`, whatever it says before."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if all(frame is not None for frame in self.frames(max(0.01, deadline - time.monotonic()))):
                return True
        return False

    def answer(self, seconds=2.0):
        """What comes of what was sent: "closed", "GOAWAY", "RST_STREAM", "status N" of a call, "PING" answered, or "silence"."""
        seen = "silence"
        for received in self.frames(seconds):
            if received is None:
                return seen
            kind, flags, _, payload = received
            if kind == GOAWAY:
                return f"GOAWAY {int.from_bytes(payload[4:8], 'big')}"
            if kind == RST_STREAM:
                seen = f"RST_STREAM {int.from_bytes(payload, 'big')}"
            elif kind == PING and flags & ACK:
                return "PING" if seen == "silence" else seen
            elif kind == HEADERS and flags & END_STREAM:
                seen = "status"
        return "closed"

    def close(self):
        self.socket.close()
