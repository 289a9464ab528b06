"""The one thing that pyproject.toml cannot say: generated code belongs to the package."""
import pathlib
import shutil
import sys

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
import generate_stubs  # noqa: E402 - it lies beside this file, which need not be the current folder


class BuildWithStubs(build_py):
    def run(self):
        generate_stubs.generate(HERE)
        # Found only now: the packages were listed before the code was there.
        if "chorus_client.v1" not in self.packages:
            self.packages.append("chorus_client.v1")
        super().run()


class SourceWithContract(sdist):
    def make_release_tree(self, base_dir, files):
        super().make_release_tree(base_dir, files)
        target = pathlib.Path(base_dir) / "proto" / generate_stubs.CONTRACT
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(generate_stubs.proto_root() / generate_stubs.CONTRACT, target)


setup(cmdclass={"build_py": BuildWithStubs, "sdist": SourceWithContract})
