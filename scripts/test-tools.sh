#!/bin/sh
# Gets what the tests need from outside cargo: ClickHouse's Python client in .venv, its Node client in
# tests/clients/node. Versions are pinned; what is there already is left alone.
set -eu

clickhouse_connect=1.12.0
clickhouse_client=1.23.1

fail() {
    echo "test-tools: $*" >&2
    exit 1
}

cd "$(dirname "$0")/.."
for tool in python3 npm node; do
    command -v "$tool" >/dev/null || fail "needs $tool"
done

[ -x .venv/bin/python ] || python3 -m venv .venv || fail "python3 -m venv failed (Debian: apt install python3-venv)"
have=$(.venv/bin/python -c 'import importlib.metadata as m; print(m.version("clickhouse-connect"))' 2>/dev/null || true)
if [ "$have" != "$clickhouse_connect" ]; then
    .venv/bin/pip install --quiet "clickhouse-connect==$clickhouse_connect" || fail "pip could not install clickhouse-connect"
fi

cd tests/clients/node
have=$(sed -n 's/.*"version": "\(.*\)".*/\1/p' node_modules/@clickhouse/client/package.json 2>/dev/null || true)
if [ "$have" != "$clickhouse_client" ]; then
    # No lock: it would record where things were downloaded from. The one dependency is pinned in package.json.
    npm install --no-package-lock --no-audit --no-fund --silent || fail "npm could not install @clickhouse/client"
fi
