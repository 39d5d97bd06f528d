"""What becomes of Nextflow's jars in one (tools/merge_jars.py)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

TOOL = Path(__file__).parents[1] / "tools" / "merge_jars.py"
SERVICE = "META-INF/services/java.nio.file.spi.FileSystemProvider"
DESCRIPTOR = "META-INF/groovy/org.codehaus.groovy.runtime.ExtensionModule"
CLASSES = "extensionClasses=a.A,a.B,b.C\nstaticExtensionClasses=b.S\n"


def jar(path: Path, content: dict[str, str]) -> None:
    with ZipFile(path, "w") as made:
        for name, text in content.items():
            made.writestr(name, text)


@pytest.fixture
def jars(tmp_path: Path) -> Path:
    classes = {"META-INF/MANIFEST.MF": "one", "x/X.class": "1", "module-info.class": "1", "META-INF/INDEX.LIST": "1"}
    methods = "moduleName=a\nextensionClasses = a.A, \\\na.B"
    jar(tmp_path / "one.jar", {**classes, SERVICE: "a.Provider", DESCRIPTOR: methods})
    classes = {
        "META-INF/MANIFEST.MF": "2",
        "x/X.class": "2",
        "y/Y.class": "2",
        "META-INF/versions/9/module-info.class": "",
    }
    methods = "moduleName=b\nextensionClasses=b.C\nstaticExtensionClasses=b.S\n"
    jar(tmp_path / "other.jar", {**classes, SERVICE: "b.Provider\n", DESCRIPTOR: methods})
    jar(tmp_path / "signed.jar", {"META-INF/KEY.SF": "", "z/Z.class": "3"})
    subprocess.run((sys.executable, TOOL, tmp_path), check=True)
    return tmp_path


def test_unsigned_jars_become_one_in_which_nothing_is_missing(jars: Path) -> None:
    assert sorted(path.name for path in jars.iterdir()) == ["merged.jar", "signed.jar"]
    with ZipFile(jars / "merged.jar") as merged:
        assert sorted(merged.namelist()) == ["META-INF/MANIFEST.MF", DESCRIPTOR, SERVICE, "x/X.class", "y/Y.class"]
        # As in a class path: what an earlier jar has hides what a later one has.
        assert merged.read("x/X.class") == b"1"
        assert b"Multi-Release: true" in merged.read("META-INF/MANIFEST.MF")


def test_lists_of_all_jars_are_read_together(jars: Path) -> None:
    with ZipFile(jars / "merged.jar") as merged:
        assert merged.read(SERVICE).decode().split() == ["a.Provider", "b.Provider"]
        assert merged.read(DESCRIPTOR).decode().endswith(CLASSES)
