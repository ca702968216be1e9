// SPDX-License-Identifier: Apache-2.0
/* vial device blk: a disk image in a process of its own. See device.c for what all kinds share.
 *
 * Invariants: (1) no other file is opened than the image, and those that --backing names.
 *
 * Trust: arguments are the user's own; what an image says is checked by its format.
 */
#include "cli/device.h"

#include "base/alloc.h"
#include "base/error.h"
#include "base/limits.h"
#include "base/text.h"
#include "device/blk/blk.h"
#include "vmm/config.h"

#include <errno.h>
#include <string.h>

enum { MOST_BACKING = 16 };

struct settings {
    struct disk_options disk; /* its strings are borrowed from the arguments */
    struct disk_backing backing[MOST_BACKING];
    struct blk_options blk;
};

static struct settings *settings_of(void *user)
{
    const struct server *server = user;
    return server->settings;
}

/* ---- options ---- */

static int take_path(void *user, const struct command_option *option, const char *value)
{
    if (value[0] == '\0')
        return refuse_value(option->name, value, "the path is empty", "name an image");
    settings_of(user)->disk.path = value;
    return 0;
}

static int take_id(void *user, const struct command_option *option, const char *value)
{
    if (strlen(value) > LIMIT_DISK_ID_BYTES || !text_is_printable_ascii(value))
        return refuse_value(option->name, value, "it is no id of a disk", "give at most 20 printable characters");
    settings_of(user)->blk.id = value;
    return 0;
}

/* A word of the list: its place, or -1. */
static int find_word(const char *const words[], const char *word, size_t length)
{
    for (int i = 0; words[i] != NULL; i++)
        if (strlen(words[i]) == length && strncmp(words[i], word, length) == 0)
            return i;
    return -1;
}

static int take_format(void *user, const struct command_option *option, const char *value)
{
    int place = find_word(config_disk_formats, value, strlen(value));
    if (place < 0)
        return refuse_value(option->name, value, "there is no such format", "give raw, qcow2 or vmdk");
    settings_of(user)->disk.format = (enum vial_disk_format)(VIAL_DISK_RAW + place);
    return 0;
}

static int take_cache(void *user, const struct command_option *option, const char *value)
{
    int place = find_word(config_disk_caches, value, strlen(value));
    if (place < 0)
        return refuse_value(option->name, value, "there is no such cache", "give writeback or unsafe");
    settings_of(user)->blk.cache = (enum vial_disk_cache)place;
    return 0;
}

static int take_sync(void *user, const struct command_option *option, const char *value)
{
    int place = find_word(config_disk_syncs, value, strlen(value));
    if (place < 0)
        return refuse_value(option->name, value, "there is no such sync", "give full, relaxed or none");
    settings_of(user)->blk.sync = (enum vial_disk_sync)place;
    return 0;
}

static int take_backing(void *user, const struct command_option *option, const char *value)
{
    struct settings *settings = settings_of(user);
    size_t length = strcspn(value, ":");
    int place = find_word(config_disk_formats, value, length);
    if (place < 0 || value[length] == '\0' || value[length + 1] == '\0')
        return refuse_value(option->name, value, "it is not FORMAT:PATH", "write it as in qcow2:/images/base.qcow2");
    if (settings->disk.backing_count == MOST_BACKING)
        return refuse_value(option->name, value, "there are too many images", "give at most 16");
    settings->backing[settings->disk.backing_count++] = (struct disk_backing){
        .path = value + length + 1,
        .format = (enum vial_disk_format)(VIAL_DISK_RAW + place),
    };
    return 0;
}

static int take_flag(void *user, const struct command_option *option, const char *value)
{
    struct settings *settings = settings_of(user);
    (void)value;
    *(bool *)(void *)((char *)settings + option->member) = true;
    return 0;
}

static int take_queues(void *user, const struct command_option *option, const char *value)
{
    uint64_t number = 0;
    if (text_to_u64(value, strlen(value), BLK_MOST_QUEUES, &number) < 0 || number == 0)
        return refuse_value(option->name, value, "it is no number of queues", "give a whole number from 1 to 16");
    settings_of(user)->blk.queue_count = (unsigned)number;
    return 0;
}

static int take_limit(void *user, const struct command_option *option, const char *value)
{
    struct settings *settings = settings_of(user);
    uint64_t *limit = (uint64_t *)(void *)((char *)settings + option->member);
    if (text_to_u64(value, strlen(value), UINT64_MAX, limit) < 0 || *limit == 0)
        return refuse_value(option->name, value, "it is no limit", "give a whole number above 0");
    return 0;
}

static const struct command_option blk_options[] = {
    {"--path", 0, "IMAGE", "the disk's image, a file or a block device", take_path, .completes = COMPLETE_FILE},
    {"--format", 0, "FORMAT", "raw, qcow2 or vmdk: formats are never guessed", take_format,
     .choices = "raw qcow2 vmdk"},
    {"--id", 0, "ID", "the guest finds the disk as /dev/disk/by-id/virtio-ID", take_id},
    {"--read-only", 0, NULL, "nothing is written, whatever the guest says", take_flag,
     offsetof(struct settings, disk.read_only)},
    {"--backing", 0, "FORMAT:PATH", "an image that may lie under this one; may be repeated, and nothing else is opened",
     take_backing},
    {"--queues", 0, "N", "1 to 16; 1 without", take_queues},
    {"--cache", 0, "MODE", "writeback; or unsafe: flushes are answered without being done", take_cache,
     .choices = "writeback unsafe"},
    {"--sync", 0, "MODE", "full: a flush reaches the medium; relaxed, on Linux the same; none: flushes are not offered",
     take_sync, .choices = "full relaxed none"},
    {"--direct-io", 0, NULL, "past the host's page cache", take_flag, offsetof(struct settings, disk.direct_io)},
    {"--no-io-uring", 0, NULL, "by threads only, as on hosts that refuse io_uring", take_flag,
     offsetof(struct settings, blk.without_ring)},
    {"--bps", 0, "N", "bytes a second on average", take_limit, offsetof(struct settings, blk.limits.bytes_per_second)},
    {"--bps-burst", 0, "N", "bytes at once after a rest", take_limit,
     offsetof(struct settings, blk.limits.burst_bytes)},
    {"--iops", 0, "N", "operations a second on average", take_limit,
     offsetof(struct settings, blk.limits.operations_per_second)},
    {"--iops-burst", 0, "N", "operations at once after a rest", take_limit,
     offsetof(struct settings, blk.limits.burst_operations)},
    {.name = NULL},
};

/* ---- the device ---- */

static int make_blk(struct server *server)
{
    struct settings *settings = server->settings;
    int result = disk_open(&settings->disk, &settings->blk.disk, &server->error);
    if (result < 0)
        return result;
    settings->blk.read_only = settings->disk.read_only;
    result = blk_new(&settings->blk, &server->device);
    if (result == 0)
        return 0;
    disk_free(settings->blk.disk);
    return device_fail(server, result, "make the block device");
}

/* What must be given, and is no option's own mistake. */
static int check_and_make(struct server *server)
{
    const struct settings *settings = server->settings;
    if (settings->disk.path == NULL || settings->disk.format == VIAL_DISK_UNSET) {
        const char *option = settings->disk.path == NULL ? "--path" : "--format";
        int result = error_set(&server->error, VIAL_ERROR_MISSING, VIAL_PHASE_START, "there is no %s", option);
        error_remedy(&server->error, settings->disk.path == NULL
                                         ? "give --path IMAGE"
                                         : "give --format raw, qcow2 or vmdk; formats are never guessed");
        return result;
    }
    return make_blk(server);
}

static int run_blk(const struct command *command, int argc, char *argv[])
{
    struct settings settings = {.blk = {.queue_count = 1}};
    settings.disk.backing = settings.backing;
    return device_serve(command, check_and_make, &settings, argc, argv);
}

const struct command command_device_blk = {
    .name = "blk",
    .path = "vial device blk",
    .arguments = "--socket PATH|--fd N --path IMAGE --format FORMAT [OPTIONS]",
    .summary = "Serve a disk over vhost-user",
    .statuses = SERVER_STATUSES,
    .options = {blk_options, server_options},
    .run = run_blk,
};
