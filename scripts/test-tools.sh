#!/bin/sh
# Gets what the tests need from outside cargo: the programs that the tracking guide's examples are written for (from
# Debian), Prometheus with promtool; ClickHouse's Python client, the verification of webhooks and what tries the API by its
# description in .venv; ClickHouse's Node client in tests/clients/node, Grafana's registries in tests/grafana. What is there
# already is left alone.
set -eu

clickhouse_connect=1.12.0
clickhouse_client=1.23.1
standardwebhooks=1.1.0
schemathesis=4.32.5
openapi_spec_validator=0.9.0
grafana_data=13.2.2

fail() {
    echo "test-tools: $*" >&2
    exit 1
}

# Debian packages whose program is not there. Not by the packages' names: it may have come another way.
missing_packages() {
    command -v php >/dev/null || echo php-cli
    php -r 'exit(function_exists("curl_init") ? 0 : 1);' >/dev/null 2>&1 || echo php-curl
    command -v ruby >/dev/null || echo ruby
    ruby -e 'require "httparty"' >/dev/null 2>&1 || echo ruby-httparty
    [ -x /usr/bin/chromium ] || echo chromium
    command -v chromedriver >/dev/null || echo chromium-driver
    command -v curl >/dev/null || echo curl
    command -v prometheus >/dev/null && command -v promtool >/dev/null || echo prometheus
}

apt_install() {
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        -o DPkg::Lock::Timeout=300 "$@" >"$apt_log" 2>&1 </dev/null
}

cd "$(dirname "$0")/.."
packages=$(missing_packages | paste -s -d ' ' -)
if [ -n "$packages" ]; then
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        fail "needs what Debian calls: $packages (as root: apt-get install $packages)"
    fi
    echo "test-tools: installing $packages" >&2
    apt_log=$(mktemp)
    trap 'rm -f "$apt_log"' EXIT
    # Lists that are missing, or so old that the packages they name are gone, are the usual reason for a failure.
    # shellcheck disable=SC2086 # the names are words
    apt_install $packages || { apt-get update -qq >"$apt_log" 2>&1 && apt_install $packages; } || {
        tail -n 20 "$apt_log" >&2
        fail "apt-get could not install $packages"
    }
    packages=$(missing_packages | paste -s -d ' ' -)
    [ -z "$packages" ] || fail "still not there after their installation: $packages"
fi

for tool in python3 npm node; do
    command -v "$tool" >/dev/null || fail "needs $tool"
done

[ -x .venv/bin/python ] || python3 -m venv .venv || fail "python3 -m venv failed (Debian: apt install python3-venv)"
python_package() {
    have=$(.venv/bin/python -c "import importlib.metadata as m; print(m.version('$1'))" 2>/dev/null || true)
    [ "$have" = "$2" ] || .venv/bin/pip install --quiet "$1==$2" || fail "pip could not install $1"
}
python_package clickhouse-connect "$clickhouse_connect"
python_package schemathesis "$schemathesis"
python_package openapi-spec-validator "$openapi_spec_validator"
python_package standardwebhooks "$standardwebhooks"

# npm_install FOLDER PACKAGE VERSION: what package.json there names, unless PACKAGE is there in that VERSION.
# No lock: it would record where things were downloaded from. What is used directly is pinned in package.json.
npm_install() {
    have=$(sed -n 's/.*"version": "\(.*\)".*/\1/p' "$1/node_modules/$2/package.json" 2>/dev/null | head -n 1)
    [ "$have" = "$3" ] || (cd "$1" && npm install --no-package-lock --no-audit --no-fund --silent) ||
        fail "npm could not install $2"
}
npm_install tests/clients/node @clickhouse/client "$clickhouse_client"
npm_install tests/grafana @grafana/data "$grafana_data"
