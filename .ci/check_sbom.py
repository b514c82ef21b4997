"""Checks a bill of materials: it is valid CycloneDX 1.5, and lists exactly what is compiled in.

usage: check_sbom.py BOM PACKAGE TARGET
"""

import json
import subprocess
import sys

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator


def compiled_in(package: str, target: str) -> set[tuple[str, str]]:
    """Name and version of each crate that the package needs to run, itself left out."""
    metadata = json.loads(
        subprocess.check_output(
            ["cargo", "metadata", "--format-version=1", "--locked", f"--filter-platform={target}"]
        )
    )
    crates = {crate["id"]: (crate["name"], crate["version"]) for crate in metadata["packages"]}
    needed = {
        node["id"]: [
            dependency["pkg"]
            for dependency in node["deps"]
            if any(kind["kind"] is None for kind in dependency["dep_kinds"])
        ]
        for node in metadata["resolve"]["nodes"]
    }
    found = set()
    waiting = [id for id in metadata["workspace_members"] if crates[id][0] == package]
    while waiting:
        id = waiting.pop()
        if id not in found:
            found.add(id)
            waiting.extend(needed[id])
    return {crates[id] for id in found if crates[id][0] != package}


def main() -> None:
    file, package, target = sys.argv[1:]
    text = open(file, encoding="utf-8").read()
    mistake = JsonStrictValidator(SchemaVersion.V1_5).validate_str(text)
    if mistake is not None:
        sys.exit(f"{file} is no CycloneDX 1.5: {mistake}")
    listed = {(it["name"], it["version"]) for it in json.loads(text)["components"]}
    expected = compiled_in(package, target)
    if listed != expected:
        sys.exit(f"{file} lacks {sorted(expected - listed)} and has {sorted(listed - expected)} too much")
    print(f"{file}: valid, {len(listed)} components")


main()
