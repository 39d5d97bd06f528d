#!/usr/bin/env bash
# Brings Nextflow's jars from Maven Central into .nextflow-dist/VERSION, with a launcher named nextflow beside them, and
# the classes that a run loads as an archive of this Java, which takes a tenth off the start of every run.
#   tools/install_nextflow.sh [VERSION]
set -euo pipefail
cd "$(dirname "$0")/.."
version=${1:-25.04.4}
folder=$PWD/.nextflow-dist/$version
[[ -x $folder/nextflow ]] && exit 0

for program in java mvn; do
    command -v "$program" >/dev/null || { echo "install_nextflow.sh: $program is needed (Java 17 or later, Maven)" >&2; exit 69; }
done
echo "Nextflow $version: fetching from Maven Central"
rm -rf "$folder.part"
mkdir -p "$folder.part"
mvn --quiet --batch-mode --file tools/nextflow/pom.xml -Dnextflow.version="$version" \
    dependency:copy-dependencies -DoutputDirectory="$folder.part/jars"
cat >"$folder.part/nextflow" <<'LAUNCHER'
#!/usr/bin/env bash
here=$(cd "$(dirname "$(readlink -f "$0")")" && pwd)
packages=(java.lang java.io java.net java.nio java.util java.util.concurrent.atomic java.util.concurrent.locks
    java.util.regex jdk.internal.misc jdk.internal.vm sun.net.www.protocol.file sun.net.www.protocol.ftp
    sun.net.www.protocol.http sun.net.www.protocol.https sun.nio.ch sun.nio.fs)
opens=("${packages[@]/#/--add-opens=java.base/}")
options=(-XX:+TieredCompilation -XX:TieredStopAtLevel=1 -XX:+UseSerialGC)
# Of another Java, or where the folder was moved since, the archive is left alone without a word.
[[ -s $here/classes.jsa ]] && options+=(-XX:SharedArchiveFile="$here/classes.jsa" -Xlog:disable -Xlog:all=error:stderr)
export NXF_OFFLINE=true NXF_DISABLE_CHECK_LATEST=true
exec java "${opens[@]/%/=ALL-UNNAMED}" "${options[@]}" \
    -Dfile.encoding=UTF-8 ${NXF_OPTS:-} -cp "$here/jars/*" nextflow.cli.Launcher "$@"
LAUNCHER
chmod +x "$folder.part/nextflow"
mv "$folder.part" "$folder"

# Written whole or not at all: Java ends with a bus error on an archive that was cut short.
project=$PWD
scratch=$(mktemp -d)
cd "$scratch"
if NXF_OPTS="-XX:ArchiveClassesAtExit=$folder/classes.part" "$folder/nextflow" run "$project" -stub -profile test \
    -ansi-log false >out 2>&1; then
    mv "$folder/classes.part" "$folder/classes.jsa"
fi
rm -rf "$scratch" "$folder/classes.part"
