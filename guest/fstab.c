// SPDX-License-Identifier: Apache-2.0
/* Folders of the host that the root's /etc/fstab names by their tags.
 *
 * Programs that speak libkrun add a folder to the machine by a tag, and have no call to say where it belongs: they
 * write that into the root's own table (fstab(5)), for whatever init there is. Ours mounts the lines of type virtiofs,
 * in their order, and no others: disks are for mount -a, as libkrun leaves them.
 *
 *     virtiofs_0   /srv/data   virtiofs   defaults   0 0
 *
 * A line with "noauto" is passed over, as is one whose place has a file system already: programs append to the table
 * each time they start.
 *
 * Invariants: (1) what cannot be mounted is told and does no more harm than that.
 *
 * Trust: the table belongs to whoever made the root.
 */
#include "guest.h"

#include <errno.h>
#include <mntent.h>
#include <stdio.h>
#include <string.h>

#define TABLE "/etc/fstab"

static void mount_line(const struct mntent *line)
{
    char options[256];
    size_t length = strlen(line->mnt_opts);
    if (strcmp(line->mnt_type, "virtiofs") != 0 || hasmntopt(line, "noauto") != NULL || is_mounted(line->mnt_dir))
        return;
    int result = length < sizeof(options) && line->mnt_dir[0] == '/' ? 0 : -EINVAL;
    if (result == 0) {
        memcpy(options, line->mnt_opts, length + 1);
        result = storage_mount("virtiofs", line->mnt_fsname, line->mnt_dir, options);
    }
    if (result < 0)
        tell("mount", line->mnt_dir, result);
}

void fstab_mount(void)
{
    int fd = open_plain(TABLE);
    FILE *table = fd >= 0 ? fdopen(fd, "r") : NULL;
    for (const struct mntent *line; table != NULL && (line = getmntent(table)) != NULL;)
        mount_line(line);
    if (table != NULL)
        endmntent(table);
}
