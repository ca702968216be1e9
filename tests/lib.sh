# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# TAP for tests written in shell: check runs a command, done_testing prints the plan.
#
# Sourced by tests/e2e/*. The runner sets VIAL_BUILD, the build folder under test. A test gets a scratch folder in
# $scratch, removed at its end. A check that fails prints the command's output as diagnostics and the test goes on.

set -u
. "$(dirname "${BASH_SOURCE[0]}")/../scripts/lib.sh"
: "${VIAL_BUILD:=$vial_source/build}"
scratch=$(mktemp -d) || exit 99
trap 'rm -rf -- "$scratch"' EXIT
# By a link without spaces in its name, so that checks can hand these to a shell as they are.
ln -s "$VIAL_BUILD" "$scratch/.build" && VIAL_BUILD="$scratch/.build"
vial="$VIAL_BUILD/vial"
test_count=0 test_failed=0

# check DESCRIPTION CMD…: passes when CMD exits 0.
check() {
	local description=$1 status
	shift
	test_count=$((test_count + 1))
	if "$@" >"$scratch/.output" 2>&1; then
		printf 'ok %d - %s\n' "$test_count" "$description"
		return 0
	else
		status=$?
	fi
	test_failed=$((test_failed + 1))
	printf 'not ok %d - %s\n' "$test_count" "$description"
	printf '# exit status %d of: %s\n' "$status" "$*"
	tail -n 60 "$scratch/.output" | sed 's/^/# /'
	return 0
}

# expect_status N CMD…: succeeds when CMD exits with N.
expect_status() {
	local expected=$1 status=0
	shift
	"$@" || status=$?
	[ "$status" -eq "$expected" ] && return 0
	echo "exit status $status, expected $expected"
	return 1
}

# in_kvmhost OUT OPTION… -- CMD…: in the emulated KVM host, on one CPU, with OUT as the folder where CMD leaves its
# results. With two CPUs, both lock up now and then inside its own kernel (QEMU's TCG emulating SVM on two threads), and
# with one a guest does, rarely: idle, waiting for an interrupt. So CMD is started again for what is left: where the host
# locked up, and without the results NAME.status of guests that hung (124), which are told with what tests/limited saw,
# or how they died.
in_kvmhost() {
	local out=$1 status=0 try each
	local -a hung
	shift
	for try in 1 2 3; do
		status=0
		"$vial_source/tests/kvmhost/run" --cpus 1 --out "$out" "$@" 2>"$scratch/.errors" || status=$?
		cat "$scratch/.errors" >&2
		if [ "$status" -eq 124 ]; then
			echo "# try $try: $(grep -m 1 '^kvmhost: ' "$scratch/.errors")" >>"$scratch/.remarks"
			continue
		fi
		mapfile -t hung < <(grep -lx 124 "$out"/*.status 2>/dev/null)
		[ ${#hung[@]} -gt 0 ] || break
		for each in "${hung[@]%.status}"; do
			echo "# try $try: the guest ${each##*/} hung" >>"$scratch/.remarks"
			cat "$each".{out,err} 2>/dev/null | grep -aE -B 12 -A 20 '^it (hangs after|died with)' |
				sed 's/^/#   /' >>"$scratch/.remarks"
			[ "$try" -eq 3 ] || rm "$each.status"
		done
	done
	return "$status"
}

# fetch_krunfw: prints where a libkrunfw.so.5 is, somebody else's and kept in the cache. Without it, and without a network
# to get it by, it fails.
fetch_krunfw() {
	local cache package=@superradcompany/microsandbox-linux-x64-gnu
	cache=$(cache_dir krunfw)
	if [ -z "$(find "$cache" -name 'libkrunfw.so.5*' -type f)" ]; then
		command -v npm >/dev/null || (need_packages npm) >&2 || return 1
		(cd "$scratch" && timeout 120 npm pack --silent "$package" >/dev/null 2>&1) || return 1
		tar -xzf "$scratch"/superradcompany-*.tgz -C "$scratch" || return 1
		cp "$(find "$scratch/package" -name 'libkrunfw.so.5*' -type f | head -n 1)" "$cache/" || return 1
	fi
	find "$cache" -name 'libkrunfw.so.5*' -type f | head -n 1
}

# count_again FILE: the checks of another's TAP as ours.
count_again() {
	local line
	while IFS= read -r line; do
		case $line in
		'ok '*) check "${line#* - }" true ;;
		'not ok '*) check "${line#* - }" false ;;
		'#'*) printf '%s\n' "$line" ;;
		esac
	done <"$1"
}

# skip DESCRIPTION REASON: counts a test that this machine cannot run. Only a missing network is a reason.
skip() {
	test_count=$((test_count + 1))
	printf 'ok %d - %s # SKIP %s\n' "$test_count" "$1" "$2"
}

done_testing() {
	[ ! -f "$scratch/.remarks" ] || cat "$scratch/.remarks"
	printf '1..%d\n' "$test_count"
	exit $((test_failed > 0))
}
