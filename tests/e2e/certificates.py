"""A certificate authority in a folder, made with the openssl command."""
import pathlib
import subprocess

_CONFIG = """\
[ca]
default_ca = here
[here]
database = {folder}/index.txt
serial = {folder}/serial
new_certs_dir = {folder}
default_md = sha256
policy = any
copy_extensions = copy
unique_subject = no
[any]
commonName = supplied
"""


def _openssl(*arguments):
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


class Authority:
    """Signs certificates; `path` is its own, in PEM."""

    def __init__(self, folder):
        self._folder = pathlib.Path(folder)
        self._folder.mkdir()
        self.path, self._key = self._folder / "ca.pem", self._folder / "ca.key"
        (self._folder / "index.txt").touch()
        (self._folder / "serial").write_text("01\n")
        (self._folder / "ca.cnf").write_text(_CONFIG.format(folder=self._folder))
        _openssl("req", "-x509", *_NEW_KEY, "-keyout", self._key, "-out", self.path, "-days", "2", "-subj", "/CN=authority")

    def issue(self, name, *, host="localhost", expired=False):
        """Paths of a new certificate for `host` and of its key."""
        certificate, key, request = (self._folder / f"{name}.{end}" for end in ("pem", "key", "csr"))
        _openssl("req", *_NEW_KEY, "-keyout", key, "-out", request, "-subj", f"/CN={name}",
                 "-addext", f"subjectAltName=DNS:{host}")
        dates = ["-startdate", "20200101000000Z", "-enddate", "20210101000000Z"] if expired else ["-days", "1"]
        _openssl("ca", "-batch", "-notext", "-config", self._folder / "ca.cnf", "-cert", self.path, "-keyfile", self._key,
                 "-in", request, "-out", certificate, *dates)
        return certificate, key


_NEW_KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
