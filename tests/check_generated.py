"""Is the generated code of ``proto/`` what its .proto files give? Part of ``make check``; ``make proto`` mends it."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from grpc_tools import protoc

PROTO = Path(__file__).parents[1] / "proto"
SERVICES = ("translation_service.proto",)


def generate(output: Path) -> None:
    """Write messages and their types for every .proto, stubs for those with services. Raises SystemExit on an error."""
    includes = [f"-I{PROTO}", f"-I{PROTO / 'third_party'}", f"-I{Path(protoc.__file__).parent / '_proto'}"]
    sources = sorted(str(path) for path in (PROTO / "heed" / "v1").glob("*.proto"))
    with_services = [source for source in sources if source.endswith(SERVICES)]
    for arguments in (
        [f"--python_out={output}", f"--pyi_out={output}", *sources],
        [f"--grpc_python_out={output}", *with_services],
    ):
        if status := protoc.main(["protoc", *includes, *arguments]):
            raise SystemExit(status)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        fresh = {path.relative_to(folder): path.read_bytes() for path in Path(folder).rglob("*_pb2*")}
    kept = {path.relative_to(PROTO): path.read_bytes() for path in (PROTO / "heed").rglob("*_pb2*.py*")}
    kept = {path: content for path, content in kept.items() if path.suffix in (".py", ".pyi")}
    stale = sorted(str(path) for path in fresh.keys() | kept.keys() if fresh.get(path) != kept.get(path))
    if stale:
        print(f"generated code is not up to date: {', '.join(stale)}; run `make proto`", file=sys.stderr)
        raise SystemExit(1)
    print(f"generated code is up to date ({len(fresh)} files)")


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        generate(PROTO)
    else:
        main()
