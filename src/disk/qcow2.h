// SPDX-License-Identifier: Apache-2.0
/* What images of the format qcow2 can do beyond being a disk (format.h has their way in, qcow2_open).
 *
 * `state` is that of an open disk_shape. What changes an image as a whole (snapshots) wants nobody else to use it
 * meanwhile.
 */
#ifndef DISK_QCOW2_H
#define DISK_QCOW2_H

#include "disk/format.h"
#include "disk/image.h"

/* Writes a new image into an empty file. Of the options, path and replaces are not looked at (but named in errors), and
 * size_bytes is final: not 0 unless the disk is to have none. On failure the file holds anything. Nothing is forced to
 * the medium. */
int qcow2_create(int fd, const struct image_create_options *options, struct vial_error *err);

/* Looks through the whole image; with a repair, the file has to be open for writing. What is counted in leaks and
 * corruptions is what is left after the repair. 0 when it could be checked, whatever was found. -ECANCELED when
 * `progress` (which may be NULL) says so; whatever was repaired by then stays. */
int qcow2_check(const struct disk_file *file, enum image_repair repair, image_progress progress, void *user,
                struct image_check *ret_check, struct vial_error *err);

void qcow2_info(const void *state, struct image_info *ret_info); /* all but file_bytes and allocated_bytes */

/* Writes one cluster, compressed if that makes it smaller and the image holds nothing there yet: at a multiple of the
 * cluster size, a whole cluster of bytes or, at the disk's end, what there is of it. On several threads at once. 0 or
 * -errno. */
int qcow2_compress_cluster(void *state, const void *bytes, uint64_t offset);

/* Snapshots inside the image. A name is looked for among the names, then among the ids. */
int qcow2_snapshot_list(const void *state, struct image_snapshot **ret_snapshots, size_t *ret_count,
                        struct vial_error *err); /* in new memory that the caller frees; NULL for none */
int qcow2_snapshot_create(void *state, const char *name, struct vial_error *err);
int qcow2_snapshot_apply(void *state, const char *name, struct vial_error *err); /* the disk may change its size */
int qcow2_snapshot_remove(void *state, const char *name, struct vial_error *err);

#endif
