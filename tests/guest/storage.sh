#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# What programs do to disks and shared folders, done in whatever Linux this runs in: storage.sh PART…
#
#     SHARE      a folder to work in, for the parts of a file system
#     DISK       a block device that may be overwritten, for the parts of a disk
#     PROGRAMS   where guest-fsx and guest-files are
#     SOURCE     C sources to compile: the project's; TREE: the folder of them that goes through git
#     SCALE      1: as much as a fast guest does; 10: a tenth of it
#     FILES      how many small files are made, listed, renamed and removed
#     STRESSORS  of stress-ng
#
# One line a part, for the test on the host to count: "fine PART (N s)", or "FAILED PART" behind the end of its output.
# shellcheck disable=SC2016,SC2317 # expanded by other shells; the parts are called by name
set -u
: "${SHARE:=/mnt/share}" "${DISK:=/dev/vda}" "${SCALE:=1}" "${PROGRAMS:=/mnt/programs}" "${SOURCE:=/mnt/source}"
: "${TREE:=src}"
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C
: "${FILES:=100000}"
: "${STRESSORS:=access chattr chdir chmod chown copy-file dentry dir dup fallocate fcntl file-ioctl filename flock fpunch
	fsize fstat getdent hdd io iomix link lockf mknod open readahead rename seek symlink sync-file touch utime verity xattr}"
mount_point=/tmp/mounted

scaled() { echo $((($1 + SCALE - 1) / SCALE)); }

# ---- any file system: in FOLDER

exercise() {
	local seed
	for seed in 1 2 3; do
		"$PROGRAMS/guest-fsx" --seed "$seed" --operations "$(scaled 4000)" "$1/exercised" || return 1
	done
	rm "$1/exercised"
}

# Writes at random with checksums, some of them flushed, and reads all of it back.
verified() {
	fio --name=verified --directory="$1" --size="$(scaled 64)m" --rw=randrw --bsrange=512-64k --ioengine="${2:-psync}" \
		--iodepth="${3:-1}" --fsync=32 --verify=crc32c --verify_fatal=1 --do_verify=1 --verify_state_save=0 --randrepeat=0 --fallocate=none \
		--minimal >/dev/null && rm "$1"/verified.*
}

part_fs_exercise() { exercise "$SHARE"; }
part_fs_verified() { verified "$SHARE" && verified "$SHARE" io_uring 16; }

part_fs_files() {
	mkdir "$SHARE/many" && "$PROGRAMS/guest-files" check "$SHARE/many" "$FILES" && rmdir "$SHARE/many"
}

# stress-ng checks what it does with --verify; what the file system says it does not know, it leaves out.
part_fs_stress() {
	local stressor known at_once
	known=" $(stress-ng --stressors 2>&1 | tr '\n' ' ') "
	mkdir -p "$SHARE/stress" || return 1
	for stressor in $STRESSORS; do
		if [[ $known = *" $stressor "* ]]; then
			at_once=2
			[ "$stressor" != fcntl ] || at_once=1 # two of it share a folder, which the first to end removes
			stress-ng --"$stressor" "$at_once" --"$stressor"-ops "$(scaled 200)" --verify --temp-path "$SHARE/stress" --timeout 1 \
				--quiet || { echo "stress-ng --$stressor"; return 1; }
		fi
	done
	rm -r "$SHARE/stress"
}

part_fs_git() {
	local git=(git -c user.name=guest -c user.email=guest@localhost -c safe.directory='*' -c init.defaultBranch=main)
	rm -rf "$SHARE/first" "$SHARE/second"
	mkdir "$SHARE/first" && cp -r "$SOURCE/$TREE" "$SHARE/first/source" && cd "$SHARE/first" || return 1
	"${git[@]}" init -q && "${git[@]}" add -A && "${git[@]}" commit -qm everything || return 1
	"${git[@]}" clone -q "file://$SHARE/first" "$SHARE/second" && cd "$SHARE/second" || return 1
	"${git[@]}" fsck --strict && [ -z "$("${git[@]}" status --porcelain)" ] && diff -r source "$SOURCE/$TREE" || return 1
	"${git[@]}" gc -q --prune=now && "${git[@]}" fsck && cd / && rm -r "$SHARE/first" "$SHARE/second"
}

part_fs_build() {
	local object
	rm -rf "$SHARE/build"
	mkdir "$SHARE/build" && cp -r "$SOURCE/src" "$SOURCE/include" "$SHARE/build" && cd "$SHARE/build" || return 1
	find src/base src/mem -name '*.c' ! -name version.c | head -n "$(scaled 20)" | xargs -P 2 -I{} sh -c \
		'gcc -std=gnu17 -D_GNU_SOURCE -O1 -Isrc -Iinclude -c {} -o $(echo {} | tr / _).o' || return 1
	ar rc all.a ./*.o && printf 'int main(void) { return 0; }\n' >main.c && gcc main.c all.a -o program && ./program ||
		return 1
	for object in ./*.o; do [ -s "$object" ] || return 1; done
	cd / && rm -r "$SHARE/build"
}

# A file that is gone but open, one written by two names, modes, times, holes, long names, a mapping that is executed.
part_fs_habits() {
	cd "$SHARE" || return 1
	exec 9<>gone && rm gone && echo kept >&9 && [ "$(cat /proc/self/fd/9)" = kept ] && exec 9>&- || return 1
	echo one >first && ln first second && echo two >>second && [ "$(wc -l <first)" = 2 ] || return 1
	[ "$(stat -c %h first)" = 2 ] && [ "$(stat -c %i first)" = "$(stat -c %i second)" ] || return 1
	chmod 4751 first && [ "$(stat -c %a second)" = 4751 ] && touch -d @1234567890.123456789 first || return 1
	[ "$(stat -c %.9Y second)" = 1234567890.123456789 ] && ln -s first "$(printf 'n%.0s' {1..255})" || return 1
	! touch "$(printf 'n%.0s' {1..256})" 2>/dev/null && rm "$(printf 'n%.0s' {1..255})" || return 1
	truncate -s 1G sparse && [ "$(stat -c %b sparse)" -lt 100 ] && cp /bin/true run && ./run && mv run ran && ./ran ||
		return 1
	setfattr -n user.subject -v value first && [ "$(getfattr --only-values -n user.subject second)" = value ] || return 1
	mkdir -p a/b/c && mv a/b d && [ -d d/c ] && ! rmdir d 2>/dev/null && rm -r a d first second sparse ran && cd /
}

# ---- a disk

part_disk_filesystem() {
	mkfs.ext4 -q -F "$DISK" && fsck.ext4 -fn "$DISK" >/dev/null && mkdir -p "$mount_point" || return 1
	mount -t ext4 -o discard "$DISK" "$mount_point" && exercise "$mount_point" && verified "$mount_point" io_uring 16 || return 1
	"$PROGRAMS/guest-files" check "$mount_point" "$(scaled 5000)" && fstrim "$mount_point" || return 1
	umount "$mount_point" && fsck.ext4 -fn "$DISK"
}

# The device itself: random writes with checksums read back, trims among writes, flushes, direct and through the cache.
part_disk_verified() {
	local common=(--filename="$DISK" --size="$(scaled 64)m" --verify=crc32c --verify_fatal=1 --do_verify=1
		--verify_state_save=0 --randrepeat=0 --minimal)
	fio --name=direct --direct=1 --rw=randrw --bsrange=4k-256k --ioengine=io_uring --iodepth=32 --fdatasync=16 \
		"${common[@]}" >/dev/null || return 1
	fio --name=cached --direct=0 --rw=randwrite --bsrange=512-64k --ioengine=psync --fsync=64 "${common[@]}" >/dev/null ||
		return 1
	fio --name=trimmed --direct=1 --rw=randwrite --bs=64k --ioengine=psync --trim_percentage=30 --trim_backlog=16 \
		--trim_verify_zero=0 "${common[@]}" >/dev/null
}

part_disk_exercise() {
	dd if=/dev/zero of="$DISK" bs=1M count=1 conv=notrunc status=none && blkdiscard "$DISK" && blkdiscard -z "$DISK" &&
		cmp -n 67108864 "$DISK" /dev/zero
}

result=0
for part in "$@"; do
	start=$SECONDS
	if ("part_${part//-/_}") >/tmp/part.out 2>&1; then
		echo "fine $part ($((SECONDS - start)) s)"
	else
		tail -n 30 /tmp/part.out | sed 's/^/  /'
		echo "FAILED $part ($((SECONDS - start)) s)"
		result=1
	fi
done
exit "$result"
