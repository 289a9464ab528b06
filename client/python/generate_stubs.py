#!/usr/bin/env python3
"""Makes the Python code of the contract, chorus_client/v1/, from proto/chorus/v1/inference.proto.

    python3 generate_stubs.py [FOLDER]

FOLDER is where the package `chorus_client` lies; the default is beside this script. Does nothing
when the code is newer than all that it is made from. Needs grpcio-tools and
googleapis-common-protos; the build of the wheel calls it, nothing is ever committed.
"""
import argparse
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
# In the repository the contract lies in proto/; a source distribution carries its own copy.
CONTRACTS = (HERE / "proto", HERE.parents[1] / "proto")
CONTRACT = pathlib.Path("chorus/v1/inference.proto")
OUTPUTS = ("inference_pb2.py", "inference_pb2.pyi", "inference_pb2_grpc.py")


def proto_root():
    for root in CONTRACTS:
        if (root / CONTRACT).is_file():
            return root
    raise FileNotFoundError(f"{CONTRACT} is in none of {', '.join(map(str, CONTRACTS))}")


def is_fresh(folder, sources):
    made = [folder / name for name in OUTPUTS]
    if not all(path.is_file() for path in made):
        return False
    return min(p.stat().st_mtime for p in made) > max(p.stat().st_mtime for p in sources)


def run_protoc(root, scratch):
    import google.rpc.status_pb2
    import grpc_tools
    from grpc_tools import protoc

    well_known = pathlib.Path(grpc_tools.__file__).parent / "_proto"
    google_rpc = pathlib.Path(google.rpc.status_pb2.__file__).parents[2]
    code = protoc.main(["protoc", f"-I{root}", f"-I{google_rpc}", f"-I{well_known}",
                        f"--python_out={scratch}", f"--pyi_out={scratch}",
                        f"--grpc_python_out={scratch}", str(root / CONTRACT)])
    if code != 0:
        raise RuntimeError(f"protoc failed on {root / CONTRACT}")


def generate(base):
    """Writes `base`/chorus_client/v1; True if there was anything to do."""
    import tempfile

    root = proto_root()
    folder = pathlib.Path(base) / "chorus_client" / "v1"
    if is_fresh(folder, [root / CONTRACT, HERE / "generate_stubs.py"]):
        return False
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="chorus-stubs-") as scratch:
        run_protoc(root, scratch)
        for name in OUTPUTS:
            text = (pathlib.Path(scratch) / CONTRACT.parent / name).read_text(encoding="utf-8")
            # protoc names the package after the contract's folder; here it is chorus_client.v1.
            text = text.replace("from chorus.v1 import", "from chorus_client.v1 import")
            (folder / name).write_text(text, encoding="utf-8")
    (folder / "__init__.py").write_text('"""Generated from the contract: never edit."""\n',
                                        encoding="utf-8")
    return True


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", default=HERE, type=pathlib.Path)
    made = generate(parser.parse_args().folder)
    print("made chorus_client/v1" if made else "chorus_client/v1 is up to date")


if __name__ == "__main__":
    sys.exit(main())
