# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# What every script of the tree shares: messages, packages, the cache folder.
#
# Sourced, never run. A script says what it does on stderr and hands results out on stdout, so that its output can be
# captured. Packages come from the system's own APT configuration; nothing is fetched from anywhere else.
#
# Invariants: (1) nothing is printed in colour unless stderr is a terminal and NO_COLOR is unset. (2) need_packages asks
# dpkg first: on a machine that has everything it runs no APT at all. (3) the cache folder is private to the user.

vial_source=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

if [ -t 2 ] && [ -z "${NO_COLOR:-}" ] && [ "${TERM:-dumb}" != dumb ]; then
	colour_bold=$'\e[1m' colour_red=$'\e[31m' colour_off=$'\e[0m'
else
	colour_bold='' colour_red='' colour_off=''
fi

say() { printf '%s==>%s %s\n' "$colour_bold" "$colour_off" "$*" >&2; }

die() {
	printf '%s%s: error:%s %s\n' "$colour_red" "${0##*/}" "$colour_off" "$*" >&2
	exit 1
}

# The folder for what is expensive to make again. It may be deleted at any time.
cache_dir() {
	[[ ${XDG_CACHE_HOME:-} == /* ]] || [[ ${HOME:-} == /* ]] || die "set HOME, below which the cache folder is"
	local top="${HOME:-}/.cache/vial"
	[[ ${XDG_CACHE_HOME:-} != /* ]] || top="$XDG_CACHE_HOME/vial"
	local dir="$top${1:+/$1}"
	{ mkdir -p "$dir" && chmod 0700 "$top"; } || die "cannot create the cache folder $dir"
	printf '%s\n' "$dir"
}

# as_root CMD…: runs CMD as root, or says which command the user has to run.
as_root() {
	if [ "$(id -u)" -eq 0 ]; then
		"$@"
	elif command -v sudo >/dev/null 2>&1; then
		sudo -- "$@"
	else
		die "this needs root and there is no sudo; run as root: $*"
	fi
}

# need_packages PACKAGE…: installs those of the Debian packages that are missing, and says so once.
need_packages() {
	local package missing=()
	command -v dpkg-query >/dev/null 2>&1 || return 0 # not Debian: the build says what it misses
	for package in "$@"; do
		[ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
	done
	[ ${#missing[@]} -gt 0 ] || return 0
	say "installing Debian packages: ${missing[*]}"
	local log
	log="$(cache_dir)/apt.log"
	local -a install=(env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}")
	as_root "${install[@]}" >"$log" 2>&1 && return 0
	as_root apt-get update -q >>"$log" 2>&1 || true # old or empty lists: refresh them once, then it must work
	as_root "${install[@]}" >>"$log" 2>&1 || {
		tail -n 20 "$log" >&2
		die "cannot install ${missing[*]}; the whole log is $log"
	}
}
