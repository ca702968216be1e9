# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# A `vial device` in the background, for tests: serve starts it, stops_by and ends_with see how it ends.
#
# Sourced by tests behind tests/lib.sh. There is one at a time, at the path $socket; whatever still runs when the test
# ends goes with it.

socket="$scratch/socket"
limit=30           # seconds for anything that has to come from another process
device='' guest='' # processes of ours that still run
trap 'kill -9 $device $guest 2>/dev/null; rm -rf -- "$scratch"' EXIT

# wait_for CMD…: until it succeeds, or $limit seconds have gone.
wait_for() {
	local left=$((limit * 50))
	until "$@"; do
		sleep 0.02
		[ $((left--)) -gt 0 ] || { echo "not within $limit s: $*"; return 1; }
	done
}

# serve KIND OPTION…: a device in the background, $device, which listens when this returns; its first line is $facts.
serve() {
	[ -p "$scratch/facts" ] || mkfifo "$scratch/facts"
	facts=''
	# A shell's background jobs ignore these.
	env --default-signal=INT,QUIT "$vial" --log-level info device "$@" --json </dev/null >"$scratch/facts" \
		2>"$scratch/events" &
	device=$!
	read -r facts <"$scratch/facts" && return 0
	cat "$scratch/events"
	return 1
}

has_ended() { [ ! -e "/proc/$1" ] || grep -q '^State:.*zombie' "/proc/$1/status"; }

# ends_with STATUS: the device ends by itself, with that exit status and without its socket's file.
ends_with() {
	local status=0
	wait_for has_ended "$device" || kill -9 "$device"
	wait "$device" || status=$?
	device=''
	cat "$scratch/events"
	[ ! -e "$socket" ] || { echo 'the socket is still there'; return 1; }
	[ "$status" -eq "$1" ] || { echo "exit status $status, expected $1"; return 1; }
}

stops_by() { # stops_by SIGNAL STATUS
	kill "-$1" "$device"
	ends_with "$2"
}

crash() {
	kill -9 "$device"
	wait "$device"
	device=''
	[ -S "$socket" ]
}
