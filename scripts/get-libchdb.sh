#!/bin/sh
# Gets libchdb (ClickHouse as a library) into .libchdb/libchdb.so: an npm package, its version and checksum pinned.
#
# Does nothing if the pinned version is there already. The library appears by rename, after its checksum was
# verified: a broken or interrupted download leaves what was there before. LIBCHDB_TARBALL names a tarball that
# is at hand already; it is verified in the same way.
set -eu

version=26.7.3-stable.1
package=@chdb/lib-linux-x64-gnu
sha256=c0d32b129e988f2b9a9a31c9141aecf5e1e2453f9a079efc4d36ab8e3f92b2ad

fail() {
    echo "get-libchdb: $*" >&2
    exit 1
}

cd "$(dirname "$0")/.."
folder=.libchdb
if [ -f "$folder/libchdb.so" ] && [ "$(cat "$folder/version" 2>/dev/null)" = "$version" ]; then
    exit 0
fi

[ "$(uname -s)/$(uname -m)" = Linux/x86_64 ] ||
    fail "the pinned package is for Linux on x86_64; set TALLY_LIBCHDB to a libchdb.so for $(uname -s) on $(uname -m)"
for tool in sha256sum tar; do
    command -v "$tool" >/dev/null || fail "needs $tool"
done

mkdir -p "$folder"
work=$(mktemp -d "$folder/get.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

if [ -n "${LIBCHDB_TARBALL:-}" ]; then
    tarball=$LIBCHDB_TARBALL
    [ -f "$tarball" ] || fail "LIBCHDB_TARBALL names no file: $tarball"
else
    command -v npm >/dev/null || fail "needs npm (or LIBCHDB_TARBALL, or TALLY_LIBCHDB at run time)"
    echo "get-libchdb: downloading $package@$version (170 MB)" >&2
    npm pack --silent --pack-destination "$work" "$package@$version" >/dev/null ||
        fail "npm could not download $package@$version"
    tarball=$(find "$work" -name '*.tgz')
fi

echo "$sha256  $tarball" | sha256sum --check --status ||
    fail "the checksum of $package@$version is not the pinned one; not used"
tar -xzf "$tarball" -C "$work" package/libchdb.so || fail "the package holds no libchdb.so"
mv "$work/package/libchdb.so" "$folder/libchdb.so"
echo "$version" >"$work/version"
mv "$work/version" "$folder/version"
echo "get-libchdb: $folder/libchdb.so is $version" >&2
