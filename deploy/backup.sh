#!/bin/sh
# A backup of a server on SQLite while it runs: deploy/backup.sh DATA_DIR TARGET
# The database first, then the artefacts: those are only ever added to, so all that the copy names is there.
# (The server deletes contents a day after nothing names them; a backup takes less.)
set -eu
data=${1:?the data dir} target=${2:?a folder for the backup}
if [ ! -f "$data/service.sqlite" ]; then
  echo "$data has no service.sqlite; name the server's data dir (with Postgres use pg_dump, see docs/service.md)." >&2
  exit 2
fi
mkdir -p "$target"
chmod 700 "$target"
python3 - "$data/service.sqlite" "$target/service.sqlite.new" <<'PYTHON'
import sqlite3, sys
source, copy = sqlite3.connect(f"file:{sys.argv[1]}?mode=ro", uri=True), sqlite3.connect(sys.argv[2])
source.backup(copy, pages=256)
found = copy.execute("PRAGMA integrity_check").fetchone()[0]
sys.exit(None if found == "ok" else f"the copy is damaged: {found}")
PYTHON
mv "$target/service.sqlite.new" "$target/service.sqlite"
cp -a -u "$data/artefacts" "$target/"
for file in "$data/secret"; do [ ! -e "$file" ] || cp -a "$file" "$target/"; done
