// SPDX-License-Identifier: Apache-2.0
/* A FUSE client for tests: what a guest's kernel says to the file server, and what it never would.
 *
 *     fs_client_begin(&client, &(struct fs_options){…});
 *     CHECK_INT(fs_client_init(&client), 0);
 *     CHECK_INT(fs_client_name(&client, FUSE_LOOKUP, 1, "file"), 0);
 *     … client.reply is what came back …
 *     CHECK_TEXT(fs_client_end(&client), "");
 */
#ifndef FS_CLIENT_H
#define FS_CLIENT_H

#include "device/fs/fs.h"
#include "fake_files.h"
#include "virtio_driver.h"

#include <linux/fuse.h>

enum { FS_CLIENT_ROOM = 1 << 20, FS_CLIENT_NO_REPLY = 1, FS_CLIENT_QUEUES = 2, FS_CLIENT_WINDOW = 1 << 20 };

/* Where messages and replies lie. */
#define FS_CLIENT_OUT UINT64_C(0x100000)
#define FS_CLIENT_IN UINT64_C(0x500000)

struct fs_client {
    struct virtio_driver driver;
    struct fake_files files;
    uint8_t *window;              /* with FS_CLIENT_WINDOW bytes */
    struct fuse_in_header header; /* of the next message: uid and such, and lies of it */
    bool lies;                    /* its length is said as it stands in the header */
    uint32_t room;                /* writable bytes of the next message */
    uint64_t unique;
    unsigned queue; /* 1 unless the test wants another */
    uint32_t written;
    const uint8_t *reply; /* behind the header, in guest memory */
    uint32_t reply_bytes;
    int32_t exit_code;
    bool has_exited;
};

/* Device, thread and queues; the options' backend, tag, queues and workers are filled in when they are 0. */
void fs_client_begin(struct fs_client *client, struct fs_options options);
void fs_client_start(struct fs_client *client);

/* Ends everything. "" when the backend does not complain and the guest holds nothing; else what is wrong. */
const char *fs_client_end(struct fs_client *client);

/* Agrees on a session, with all that a guest might offer. */
int fs_client_init(struct fs_client *client);
const struct fuse_init_out *fs_client_init_as(struct fs_client *client, uint32_t minor, uint64_t features);

/* Sends a message and waits for its reply: the error in it, or FS_CLIENT_NO_REPLY when the chain came back empty. */
int fs_client_call(struct fs_client *client, uint32_t opcode, uint64_t node, const void *arguments,
                   size_t argument_bytes, const void *tail, size_t tail_bytes);
int fs_client_name(struct fs_client *client, uint32_t opcode, uint64_t node, const char *name);

/* Only sends it, at a place of its own (0 to 15), with small room; and takes the next reply: its error. */
void fs_client_post(struct fs_client *client, unsigned place, uint32_t opcode, uint64_t node, const void *arguments,
                    size_t argument_bytes, uint32_t room);
int fs_client_take(struct fs_client *client, unsigned *ret_place);

/* Shorter ways: node or handle of what there is, 0 when it cannot be had. */
uint64_t fs_client_node(struct fs_client *client, uint64_t parent, const char *name);
uint64_t fs_client_open(struct fs_client *client, uint32_t opcode, uint64_t node, uint32_t flags);
int fs_client_release(struct fs_client *client, uint32_t opcode, uint64_t node, uint64_t handle);
int fs_client_read(struct fs_client *client, uint64_t node, uint64_t handle, uint64_t offset, uint32_t size);
int fs_client_write(struct fs_client *client, uint64_t node, uint64_t handle, uint64_t offset, const char *text);
void fs_client_forget(struct fs_client *client, uint64_t node, uint64_t lookups);

#endif
