#!/usr/bin/env bash
# Runs tiers of tests and ends with one line "N passed, N failed, N skipped".
# A tier that cannot run here is named and counted as one skip; with CI=true a skip fails.
set -uo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/.bin:$PATH"

passed=0 failed=0 skipped=0
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT

# Runs a command, shows what it prints, and adds up the closing lines of its test runners.
tier() {
    local name=$1 log="$logs/$1" begin=$SECONDS status
    shift
    printf '\n== %s: %s\n' "$name" "$*"
    "$@" 2>&1 | tee "$log"
    status=${PIPESTATUS[0]}
    local tier_passed tier_failed
    tier_passed=$(count passed "$log") tier_failed=$(count failed "$log")
    if [ "$status" != 0 ] && [ "$tier_failed" = 0 ]; then
        tier_failed=1 # it ended before a test could fail
    fi
    passed=$((passed + tier_passed)) failed=$((failed + tier_failed))
    printf '== %s: %d passed, %d failed in %d min %02d s\n' "$name" "$tier_passed" "$tier_failed" \
        $(((SECONDS - begin) / 60)) $(((SECONDS - begin) % 60))
}

# Runs a command that is one check by its exit code.
check() {
    local name=$1
    shift
    printf '\n== %s: %s\n' "$name" "$*"
    if "$@"; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
}

# Adds up "test result: ok. 12 passed; 0 failed" and Go's "--- PASS"/"--- FAIL".
count() {
    awk -v what="$1" '
        /^test result:/ { for (i = 2; i <= NF; i++) if ($i == what ";" || $i == what) n += $(i - 1) }
        what == "passed" && /^--- PASS/ { n++ }
        what == "failed" && /^--- FAIL/ { n++ }
        END { print n + 0 }' "$2"
}

skip() {
    printf '\n== %s: skipped, %s\n' "$1" "$2"
    skipped=$((skipped + 1))
    if [ "${CI:-}" = true ]; then failed=$((failed + 1)); fi
}

for name in "$@"; do
    case $name in
    unit)
        check build cargo test --workspace --no-run
        tier unit cargo test --workspace --lib --bins
        tier crates cargo test --workspace --test wire_formats --test purity --test examples
        tier tools go test -C tools -v ./cmd/localcluster/...
        ;;
    model) tier model cargo test --test model ;;
    integration) tier integration cargo test --test integration ;;
    e2e)
        if [ "$(id -u)" = 0 ]; then
            check image tools/image.sh
            tier e2e cargo test --test e2e -- --test-threads=1 --nocapture
        else
            skip e2e "a node with real pods needs root"
        fi
        ;;
    generated) check generated tools/generate.sh --check ;;
    *) printf 'no tier is called %s\n' "$name" >&2 && exit 2 ;;
    esac
done

printf '\n%d passed, %d failed, %d skipped\n' "$passed" "$failed" "$skipped"
[ "$failed" = 0 ]
