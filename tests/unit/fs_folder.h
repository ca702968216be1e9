// SPDX-License-Identifier: Apache-2.0
/* A backend under test, driven as the server drives it: short names for its operations, and who asks. */
#ifndef FS_FOLDER_H
#define FS_FOLDER_H

#include "test.h"

#include "device/fs/backend.h"

#include <string.h>
#include <sys/stat.h>

#define ROOT VIAL_FS_ROOT_NODE

/* The backend under test, what it said last, and the shared folder's path on the host. */
extern struct fs_backend fs;
extern struct vial_fs_entry entry, other;
extern struct vial_fs_attributes attributes;
extern const char *share;

/* A passthrough backend of the folder `share` in the scratch folder; mapped to an owner unless we have privileges. */
int begin_with(struct passthrough_options options);
int begin(void);
void end(void);

/* A path below the share; the last two are kept. */
const char *below(const char *name);

extern const struct vial_fs_caller fs_root; /* of the guest, with a umask of 022 */

/* Short forms, in the name of fs_root; what they find is in `entry` and `attributes`. */
int lookup(uint64_t parent, const char *name);
int create(uint64_t parent, const char *name, uint32_t mode, uint32_t flags, uint64_t *ret_handle);
ssize_t write_at(uint64_t node, uint64_t handle, const char *text, uint64_t offset, uint32_t flags);
int set(uint64_t node, uint32_t which, struct vial_fs_attributes wanted);

/* Looks a path of several components up: the last one's entry, the others forgotten. */
int fs_walk(const char *path, struct vial_fs_entry *ret_entry);

/* Creates a file with these bytes, closed again and forgotten: 0 or -errno. */
int fs_write_file(uint64_t parent, const char *name, const char *text);

/* Opens, reads from the start, closes: how many bytes, or -errno. The text is terminated. */
ssize_t fs_read_node(uint64_t node, char *text, size_t size);
ssize_t fs_read_file(const char *path, char *text, size_t size);

/* What a listing from an offset found; stops after `most` entries. */
enum { FS_MOST_NAMES = 12000 };
struct fs_names {
    size_t count, most;
    uint64_t next_offset; /* behind the last one */
    struct {
        char name[32];
        uint64_t inode, offset;
        uint32_t type;
    } entry[FS_MOST_NAMES];
};
int fs_list(uint64_t node, uint64_t handle, uint64_t offset, size_t most, struct fs_names *names);

/* Opens, lists all, closes: the names in order, "a b c ", without the dots. */
const char *fs_list_text(uint64_t node);

int count_descriptors(void);

/* Runs the function in a child, as somebody without rights if we are root: what it returned. */
int in_child(int (*function)(void));
int as_ordinary_user(int (*function)(void));

/* In such a child, instead of CHECK. */
#define MUST(condition)                                                                                                \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            printf("# %s:%d: %s (errno %d)\n", __FILE__, __LINE__, #condition, errno);                                 \
            fflush(stdout);                                                                                            \
            return 1;                                                                                                  \
        }                                                                                                              \
    } while (0)

#endif
