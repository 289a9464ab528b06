#!/usr/bin/env python3
"""The machine code of the CUDA kernels for sm_90a: no local-memory traffic anywhere, and the Hopper
kernels use the tensor cores by HGMMA and the tensor memory unit by UTMALDG, and compute softmax while
the values of the block before are added. Prints a line a kernel.

    .venv/bin/python tests/kernels/sass_test.py LIBRARY

LIBRARY: what CMake builds as chorus_cuda_kernels. The disassemblers come from PyPI
(scripts/requirements-cuda-tools.txt).
"""
import argparse
import os
import pathlib
import re
import subprocess
import sys
import sysconfig

ARCHITECTURE = "sm_90a"
HOPPER = "HopperAttention<"
# Of blocks of 64 and of 128 keys: for logits the steps of 16 along the head, before the loop and in it;
# for values those along the keys, in the loop and after it.
HOPPER_KERNELS = {(element, head_dim): sum(2 * (head_dim // 16) + 2 * (keys // 16) for keys in (64, 128))
                  for element in ("BFloat16", "Float16") for head_dim in (64, 128)}
# Of a thread: the logits of 64 queries and of a block of 64 or of 128 keys, over 128 threads.
BLOCK_EXPONENTIALS = [64 * keys // 128 for keys in (64, 128)]


def tools():
    return pathlib.Path(sysconfig.get_paths()["purelib"]) / "nvidia" / "cu13" / "bin"


def dump(library, what):
    # cuobjdump calls nvdisasm by its name.
    environment = {**os.environ, "PATH": f"{tools()}{os.pathsep}{os.environ.get('PATH', '')}"}
    command = [str(tools() / "cuobjdump"), "-arch", ARCHITECTURE, what, library]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} failed: {done.stderr.strip()}")
    return done.stdout


def demangle(names):
    text = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True).stdout
    return [name.replace("chorus::", "").replace("device::", "") for name in text.splitlines()]


def read_kernels(library):
    """{mangled name: its instructions, as [(address, name, operands)]}"""
    kernels, current = {}, None
    for line in dump(library, "-sass").splitlines():
        if found := re.match(r"\s*Function : (\S+)", line):
            current = kernels.setdefault(found[1], [])
        elif found := re.match(r"\s*/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)([^;]*)", line):
            current.append((int(found[1], 16), found[2], found[3].strip()))
    return kernels


def read_registers(library):
    """{mangled name: registers of a thread at its start}"""
    text = dump(library, "--dump-resource-usage")
    return {name: int(count) for name, count in re.findall(r"Function (\S+):\s+REG:(\d+)", text)}


def count(instructions, *names):
    return sum(name.split(".")[0] in names for _, name, _ in instructions)


def exponentials_beside_values(instructions):
    """The MUFU.EX2 between each wait that leaves one wgmma group under way, the values', and the end of that:
    the wait for all groups, or the branch back to before the first wait."""
    counts, begin = [], None
    for address, name, operands in instructions:
        if name == "WARPGROUP.DEPBAR.LE":
            begin = address if operands == "gsb0, 0x1" else None
            if begin is not None:
                counts.append(0)
        elif name == "BRA" and begin is not None and int(operands.split()[-1], 16) <= begin:
            begin = None
        elif name == "MUFU.EX2" and begin is not None:
            counts[-1] += 1
    return sorted(counts)


def faults_of(name, instructions):
    local = count(instructions, "LDL", "STL")
    if local > 0:
        yield f"{name}: {local} accesses to local memory"
    if HOPPER not in name:
        return
    element, head_dim = re.search(HOPPER + r"(\w+), (\d+)>", name).groups()
    want = HOPPER_KERNELS[element, int(head_dim)]
    if count(instructions, "HGMMA") != want:
        yield f"{name}: {count(instructions, 'HGMMA')} HGMMA, expected {want}"
    beside = exponentials_beside_values(instructions)
    if len(beside) != len(BLOCK_EXPONENTIALS) or any(map(int.__lt__, beside, BLOCK_EXPONENTIALS)):
        yield f"{name}: {beside} MUFU.EX2 beside the values, expected at least {BLOCK_EXPONENTIALS}"
    for needed in ("UTMALDG", "USETMAXREG", "LDGSTS"):
        if count(instructions, needed) == 0:
            yield f"{name}: no {needed}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library")
    library = parser.parse_args().library
    if not (tools() / "cuobjdump").exists():
        sys.exit(f"no cuobjdump beside {sys.executable}: run scripts/setup.sh")
    kernels, registers = read_kernels(library), read_registers(library)
    names = dict(zip(kernels, demangle(kernels)))
    faults = []
    print(f"{'HGMMA':>6} {'UTMALDG':>8} {'LDL/STL':>8} {'registers':>10}  kernel")
    for mangled, instructions in sorted(kernels.items(), key=lambda item: names[item[0]]):
        print(f"{count(instructions, 'HGMMA'):6} {count(instructions, 'UTMALDG'):8} "
              f"{count(instructions, 'LDL', 'STL'):8} {registers[mangled]:10}  {names[mangled].split('(')[0]}")
        faults += faults_of(names[mangled], instructions)
    missing = len(HOPPER_KERNELS) - sum(HOPPER in name for name in names.values())
    if missing != 0:
        faults.append(f"{missing} of {len(HOPPER_KERNELS)} Hopper kernels are missing")
    print("\n".join(faults), file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
