# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC2154 # scratch and vial_source are the including test's
# Builds of the tree with other compilers and options, for tests/e2e. They lie next to the tested build and are kept, so
# that a second run only builds what changed.

# variant NAME MESON-OPTION…: configures build-NAME once, builds it, and refuses warnings.
variant() {
	local folder=build-check-$1
	shift
	[ -e "$folder/build.ninja" ] || meson setup "$folder" "$@" || return 1
	ninja -C "$folder" >"$scratch/ninja" 2>&1 || { cat "$scratch/ninja"; return 1; }
	grep -i -A5 'warning' "$scratch/ninja" && return 1
	return 0
}

# Says only what did not pass: the diagnostics of a test are cut off at some length.
tests_pass() {
	local status=0
	"$vial_source/scripts/test" --build "$@" >"$scratch/tests" 2>&1 || status=$?
	grep -v '^pass ' "$scratch/tests"
	return $status
}
