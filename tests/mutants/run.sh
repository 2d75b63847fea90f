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
# Shared, so that only what a patch touches is compiled again.
export CARGO_TARGET_DIR=$root/target

fail() {
    echo "mutants: $1" >&2
    exit 2
}

# A copy of the tracked files, as they are now; unchanged ones keep their times and are not rebuilt.
copy_tree() {
    rm -rf "$tree"
    mkdir -p "$tree"
    git -C "$root" ls-files -z | (cd "$root" && xargs -0 tar -cf - --ignore-failed-read) | tar -xf - -C "$tree"
}

build() {
    (cd "$tree" && cargo test --test model --no-run) >"$work/$1.log" 2>&1 ||
        fail "$1 does not compile, see $work/$1.log"
}

passes() {
    (cd "$tree" && timeout 1800 cargo test --test model) >>"$work/$1.log" 2>&1
}

names=("$@")
if [ ${#names[@]} -eq 0 ]; then
    for patch in "$root"/tests/mutants/*.patch; do
        names+=("$(basename "$patch" .patch)")
    done
fi

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
