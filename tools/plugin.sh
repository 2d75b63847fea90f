#!/usr/bin/env bash
# Builds `kubectl lookback` as it is released. `install` puts it into DESTDIR (default ~/.local/bin);
# `archive` makes target/plugin/ with the archive and the manifest for krew.
set -euo pipefail
cd "$(dirname "$0")/.."

built=target/x86_64-unknown-linux-musl/dist/kubectl-lookback
files=($built deploy/krew/kubectl_complete-lookback LICENSE)

cargo build --profile dist --bin kubectl-lookback
case ${1:-install} in
install)
    to=${DESTDIR:-$HOME/.local/bin}
    install -D -m 755 -t "$to" "${files[@]:0:2}"
    printf 'installed %s/kubectl-lookback\n' "$to"
    [[ :$PATH: = *:$to:* ]] || printf 'kubectl does not find it yet: put %s into your PATH\n' "$to"
    ;;
archive)
    version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
    to=target/plugin
    archive=$to/kubectl-lookback-v$version-linux-amd64.tar.gz
    mkdir -p $to/files
    cp "${files[@]}" $to/files
    tar -C $to/files --owner=0 --group=0 --sort=name --mtime=@0 -czf "$archive" .
    sum=$(sha256sum "$archive" | cut -d' ' -f1)
    sed -e '/^#/d' -e "s/\${VERSION}/$version/g" -e "s/\${SHA256}/$sum/" \
        deploy/krew/lookback.yaml >$to/lookback.yaml
    printf 'wrote %s and %s\n' "$archive" $to/lookback.yaml
    ;;
*) printf 'usage: %s [install|archive]\n' "$0" >&2 && exit 2 ;;
esac
