"""Where the server is, and how to speak to it: plain, TLS, mutual TLS, a bearer token."""
from __future__ import annotations

import dataclasses
import json
import os
import pathlib

import grpc

# A name with several addresses (a headless Service of Kubernetes, or "ipv4:HOST:PORT,HOST:PORT") is
# used in turns; servers that say NOT_SERVING are left out until they serve again. Servers without
# the health service count as serving.
_SERVICE_CONFIG = json.dumps({"loadBalancingConfig": [{"round_robin": {}}],
                              "healthCheckConfig": {"serviceName": "chorus.v1.Inference"}})
# A whole answer arrives in small messages; Explain may return some hundred thousand values.
_MAX_MESSAGE_BYTES = 256 << 20


@dataclasses.dataclass(frozen=True)
class Tls:
    """Files in PEM form. Without `root_certificates` those that gRPC brings are trusted;
    `private_key` and `certificate_chain`, both or none, make it mutual TLS. `server_name` is the name
    that the server's certificate must hold, where it is not the target's."""
    root_certificates: str | os.PathLike | None = None
    private_key: str | os.PathLike | None = None
    certificate_chain: str | os.PathLike | None = None
    server_name: str | None = None

    def credentials(self):
        if (self.private_key is None) != (self.certificate_chain is None):
            raise ValueError("tls: private_key and certificate_chain belong together; one is missing")
        files = (self.root_certificates, self.private_key, self.certificate_chain)
        return grpc.ssl_channel_credentials(
            *(None if path is None else pathlib.Path(path).read_bytes() for path in files))


def _host(target):
    address = target.rpartition("///")[2] if "///" in target else target.removeprefix("dns:")
    return address.rpartition(":")[0].strip("[]") or address


def is_local(target):
    """True if nothing sent to `target` leaves this machine."""
    if target.startswith("unix:"):
        return True
    scheme, _, addresses = target.partition(":")
    targets = addresses.split(",") if scheme in ("ipv4", "ipv6") else [target]
    hosts = [_host(one) for one in targets]
    return all(host in ("localhost", "::1") or host.startswith("127.") for host in hosts)


def channel_options(target, tls):
    options = [("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
               ("grpc.service_config", _SERVICE_CONFIG)]
    if is_local(target):
        options.append(("grpc.enable_http_proxy", 0))  # a proxy is for other machines
    if tls is not None and tls.server_name:
        options.append(("grpc.ssl_target_name_override", tls.server_name))
    return options


def metadata(target, tls, token):
    """Of every call. A token is a secret: it leaves this machine only encrypted."""
    if token is None:
        return ()
    if tls is None and not is_local(target):
        raise ValueError(f"token: it would travel unencrypted to {target}; give tls=Tls(...) too")
    return (("authorization", f"Bearer {token}"),)


def open_channel(module, target, tls):
    """`module`: grpc or grpc.aio."""
    options = channel_options(target, tls)
    if tls is None:
        return module.insecure_channel(target, options=options)
    return module.secure_channel(target, tls.credentials(), options=options)
