"""Makes one jar of a folder's jars: Java looks for a class that there is nowhere in each, thousands of times a start.

python3 tools/merge_jars.py FOLDER

Signed jars stay beside it as they are.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

MERGED = "merged.jar"
#: What every jar may have, to be read together: one line for each provider.
LISTS = ("META-INF/services/", "META-INF/extensions.idx")
#: Groovy's descriptor of methods that a jar adds to others' classes: properties, of which two are lists.
DESCRIPTOR = "org.codehaus.groovy.runtime.ExtensionModule"
#: What holds for the jar that it came with alone.
LEFT_OUT = ("META-INF/MANIFEST.MF", "META-INF/INDEX.LIST", "module-info.class")
# Some of what is merged has other classes for later versions of Java.
MANIFEST = "Manifest-Version: 1.0\nMulti-Release: true\n\n"


def is_signed(jar: Path) -> bool:
    with ZipFile(jar) as opened:
        return any(name.startswith("META-INF/") and name.endswith(".SF") for name in opened.namelist())


def joined_descriptors(name: str, texts: list[str]) -> str:
    """One descriptor of all classes that the descriptors name. Of two of one moduleName Groovy reads the first."""
    classes: dict[str, list[str]] = {"extensionClasses": [], "staticExtensionClasses": []}
    for text in texts:
        for line in text.replace("\\\n", "").splitlines():
            key, _, value = line.partition("=")
            if key.strip() in classes:
                classes[key.strip()] += [each.strip() for each in value.split(",") if each.strip()]
    lists = "".join(f"{key}={','.join(each)}\n" for key, each in classes.items())
    return f"moduleName=merged-{Path(name).parent.name}\nmoduleVersion=1\n{lists}"


def merge(folder: Path) -> None:
    jars = [jar for jar in sorted(folder.glob("*.jar")) if not is_signed(jar)]
    lists: dict[str, list[str]] = defaultdict(list)
    seen: set[str] = set()
    with ZipFile(folder / f"{MERGED}.part", "w", ZIP_DEFLATED) as merged:
        merged.writestr("META-INF/MANIFEST.MF", MANIFEST)
        for jar in jars:
            with ZipFile(jar) as opened:
                for name in opened.namelist():
                    if name.endswith(LEFT_OUT):
                        continue
                    if name.endswith(DESCRIPTOR) or (name.startswith(LISTS) and not name.endswith("/")):
                        lists[name].append(opened.read(name).decode())
                    elif name not in seen:
                        seen.add(name)
                        merged.writestr(name, opened.read(name))
        for name, texts in lists.items():
            joined = joined_descriptors(name, texts) if name.endswith(DESCRIPTOR) else "\n".join(texts) + "\n"
            merged.writestr(name, joined)
    for jar in jars:
        jar.unlink()
    (folder / f"{MERGED}.part").rename(folder / MERGED)


if __name__ == "__main__":
    merge(Path(sys.argv[1]))
