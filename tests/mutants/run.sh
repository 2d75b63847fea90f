#!/usr/bin/env bash
# Plants one bug of this directory at a time into a copy of the tree and runs the model tests on it.
# One line a mutant; exit 1 when the tests let one through, 2 when a patch cannot be tried.
#
#   tests/mutants/run.sh [name...]     all of them without a name; a name is a patch file's without .patch
#
# What the tests print goes to target/mutants/<name>.log.
set -euo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
work=$root/target/mutants
tree=$work/tree
# Not the tree's own: cargo tells the two trees' artifacts apart by nothing but times, and a mutant
# must never end up in anybody's build.
export CARGO_TARGET_DIR=$work/target

fail() {
    echo "mutants: $1" >&2
    exit 2
}

# A copy of the tracked files as they are now, all of them newer than anything compiled before: what an
# earlier run left behind may hold a mutant, and cargo goes by times.
copy_tree() {
    rm -rf "$tree"
    mkdir -p "$tree"
    (cd "$root" && git ls-files -z | xargs -0 ls -d 2>/dev/null | tar -cf - -T -) | tar -xmf - -C "$tree"
}

# What is compiled already need not be compiled again.
copy_artifacts() {
    [ -d "$CARGO_TARGET_DIR" ] && return
    mkdir -p "$CARGO_TARGET_DIR"
    for profile in debug x86_64-unknown-linux-musl/debug; do
        for kind in deps build .fingerprint; do
            if [ -d "$root/target/$profile/$kind" ]; then
                mkdir -p "$CARGO_TARGET_DIR/$profile"
                cp -a "$root/target/$profile/$kind" "$CARGO_TARGET_DIR/$profile/"
            fi
        done
    done
}

build() {
    (cd "$tree" && cargo test --test model --no-run) >"$work/$1.log" 2>&1 ||
        fail "$1 does not compile, see $work/$1.log"
}

# The comparison with a real server tests the model, not the worker.
passes() {
    (cd "$tree" && timeout 1800 cargo test --test model -- --skip real_server) >>"$work/$1.log" 2>&1
}

names=("$@")
if [ ${#names[@]} -eq 0 ]; then
    for patch in "$root"/tests/mutants/*.patch; do
        names+=("$(basename "$patch" .patch)")
    done
fi

mkdir -p "$work"
copy_artifacts
copy_tree
echo "mutants: the unchanged tree first" >&2
build unchanged
passes unchanged || fail "the unchanged tree does not pass, see $work/unchanged.log"

survivors=0
for name in "${names[@]}"; do
    patch=$root/tests/mutants/$name.patch
    [ -f "$patch" ] || fail "there is no $patch"
    patch -p1 -s -f --no-backup-if-mismatch -d "$tree" <"$patch" >&2 ||
        fail "$name.patch does not apply any more: make it again from the code as it is"
    echo "mutants: $name" >&2
    build "$name"
    if passes "$name"; then
        echo "missed $name"
        survivors=$((survivors + 1))
    else
        echo "found $name"
    fi
    patch -p1 -s -f -R --no-backup-if-mismatch -d "$tree" <"$patch" >&2
done
[ "$survivors" -eq 0 ]
