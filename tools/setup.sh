#!/usr/bin/env bash
# Installs what the other targets need. Without arguments everything, else the named parts:
#   packages      Debian packages, as root only; otherwise names what is missing
#   rust          the toolchain of rust-toolchain.toml
#   localcluster  the program that runs local clusters
#   nats          nats-server
#   kube          Kubernetes
#   deny          cargo-deny
# Each step does nothing when its result is there.
set -euo pipefail
cd "$(dirname "$0")/.."
export LOOKBACK_CACHE="${LOOKBACK_CACHE:-$HOME/.cache/lookback}"

say() { printf 'setup: %s\n' "$*"; }

# What a full node, the C parts of the static binary and the scripts need.
packages() {
    local -A provides=(
        [containerd]=containerd [runc]=runc [nft]=nftables [ip]=iproute2
        [mount]=mount [pkill]=procps [cc]=build-essential [musl-gcc]=musl-tools
        [/usr/lib/cni/bridge]=containernetworking-plugins
    )
    local missing=() program
    for program in "${!provides[@]}"; do
        command -v "$program" >/dev/null || [ -x "/usr/sbin/$program" ] || missing+=("${provides[$program]}")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    if [ "$(id -u)" != 0 ]; then
        say "install these packages as root: ${missing[*]}"
        return 0
    fi
    say "installing ${missing[*]}"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

rust() {
    local channel
    channel=$(sed -n 's/^channel = "\(.*\)"/\1/p' rust-toolchain.toml)
    if rustup run "$channel" rustc --version >/dev/null 2>&1 &&
        rustup target list --toolchain "$channel" --installed | grep -q x86_64-unknown-linux-musl; then
        return 0
    fi
    say "installing Rust $channel"
    rustup toolchain install "$channel" --profile minimal --component clippy --component rustfmt \
        --target x86_64-unknown-linux-musl
}

localcluster() {
    mkdir -p .bin
    go build -C tools -o "$PWD/.bin/localcluster" ./cmd/localcluster
}

nats() { localcluster && .bin/localcluster build nats-server; }

kube() { localcluster && .bin/localcluster build kube; }

deny() {
    local version=0.20.2
    command -v cargo-deny >/dev/null && return 0
    local root="$LOOKBACK_CACHE/cargo-deny-$version"
    if [ ! -x "$root/bin/cargo-deny" ]; then
        say "building cargo-deny $version"
        (cd / && cargo install cargo-deny --version "$version" --locked --quiet --root "$root")
    fi
    mkdir -p .bin && ln -sf "$root/bin/cargo-deny" .bin/cargo-deny
}

for part in "${@:-packages}"; do
    case $part in
    packages | rust | localcluster | nats | kube | deny) "$part" ;;
    *) say "no part is called $part" >&2 && exit 2 ;;
    esac
done
[ $# -gt 0 ] || { rust && nats && kube; }
