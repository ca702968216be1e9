// SPDX-License-Identifier: Apache-2.0
/* vial device fs: a folder of the host as a shared file system, in a process of its own. See device.c for what all
 * kinds share.
 *
 * Invariants: (1) nothing outside the folder is reached, whatever the guest says (device/fs/passthrough.c). (2) with
 * --read-only nothing in it is changed (device/fs/request.c).
 *
 * Trust: arguments are the user's own.
 */
#include "cli/device.h"

#include "base/error.h"
#include "base/limits.h"
#include "base/text.h"
#include "device/fs/fs.h"

#include <stddef.h>
#include <string.h>

enum { default_workers = 4 };

struct settings {
    struct passthrough_options folder; /* its path is borrowed from the arguments */
    struct fs_options fs;              /* its tag, too */
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
        return refuse_value(option->name, value, "the path is empty", "name a folder");
    settings_of(user)->folder.path = value;
    return 0;
}

static int take_tag(void *user, const struct command_option *option, const char *value)
{
    size_t length = strlen(value);
    if (length == 0 || length > LIMIT_FS_TAG_BYTES)
        return refuse_value(option->name, value, "a tag has 1 to 36 bytes", "give a short name, such as shared");
    settings_of(user)->fs.tag = value;
    return 0;
}

static int take_flag(void *user, const struct command_option *option, const char *value)
{
    struct settings *settings = settings_of(user);
    (void)value;
    *(bool *)(void *)((char *)settings + option->member) = true;
    return 0;
}

/* The place of a word in a list, or -1. */
static int find_word(const char *const words[], const char *word)
{
    for (int i = 0; words[i] != NULL; i++)
        if (strcmp(words[i], word) == 0)
            return i;
    return -1;
}

static int take_cache(void *user, const struct command_option *option, const char *value)
{
    static const char *const words[] = {
        [FS_CACHE_AUTO] = "auto", [FS_CACHE_NONE] = "none", [FS_CACHE_ALWAYS] = "always", [3] = NULL};
    int place = find_word(words, value);
    if (place < 0)
        return refuse_value(option->name, value, "there is no such cache policy", "give auto, none or always");
    settings_of(user)->fs.cache = (enum fs_cache)place;
    return 0;
}

static int take_xattrs(void *user, const struct command_option *option, const char *value)
{
    static const char *const words[] = {
        [FS_XATTR_USER] = "user", [FS_XATTR_NONE] = "none", [FS_XATTR_ALL] = "all", [3] = NULL};
    int place = find_word(words, value);
    if (place < 0)
        return refuse_value(option->name, value, "there is no such choice", "give user, none or all");
    settings_of(user)->folder.xattrs = (enum fs_xattrs)place;
    return 0;
}

static int take_queues(void *user, const struct command_option *option, const char *value)
{
    uint64_t number = 0;
    if (text_to_u64(value, strlen(value), FS_MOST_QUEUES, &number) < 0 || number == 0)
        return refuse_value(option->name, value, "it is no number of queues", "give a whole number from 1 to 8");
    settings_of(user)->fs.queue_count = (unsigned)number;
    return 0;
}

/* UINT32_MAX is no id: chown(2) takes it for "as it is". */
static int take_owner(void *user, const struct command_option *option, const char *value)
{
    struct settings *settings = settings_of(user);
    size_t length = strcspn(value, ":");
    uint64_t uid = 0, gid = 0;
    if (value[length] == '\0' || text_to_u64(value, length, UINT32_MAX - 1, &uid) < 0 ||
        text_to_u64(value + length + 1, strlen(value + length + 1), UINT32_MAX - 1, &gid) < 0)
        return refuse_value(option->name, value, "it is not UID:GID", "write it as in 1000:1000");
    settings->folder.has_owner = true;
    settings->folder.owner_uid = (uint32_t)uid;
    settings->folder.owner_gid = (uint32_t)gid;
    return 0;
}

static const struct command_option fs_options[] = {
    {"--path", 0, "FOLDER", "the folder; nothing outside of it can be reached", take_path,
     .completes = COMPLETE_FOLDER},
    {"--tag", 0, "TAG", "its name in the guest, at most 36 bytes", take_tag},
    {"--read-only", 0, NULL, "nothing is changed, whatever the guest says", take_flag,
     offsetof(struct settings, fs.read_only)},
    {"--cache", 0, "POLICY",
     "how long the guest believes what it was told: auto; none, for files that others change all the time; always, for "
     "files that nobody else changes",
     take_cache, .choices = "auto none always"},
    {"--queues", 0, "N", "1 to 8; 1 without", take_queues},
    {"--owner", 0, "UID:GID",
     "everything seems to belong to these, and is this user's on the host; without privileges that is always so, with "
     "0:0 unless others are given",
     take_owner},
    {"--xattrs", 0, "WHICH", "user (and ACLs), none or all of the extended attributes", take_xattrs,
     .choices = "user none all"},
    {"--only-public", 0, NULL, "only what every user of the host may read is there", take_flag,
     offsetof(struct settings, folder.only_public)},
    {"--one-device", 0, NULL, "other file systems that are mounted in the folder are not there", take_flag,
     offsetof(struct settings, folder.one_device)},
    {.name = NULL},
};

/* ---- the device ---- */

static int check(struct server *server)
{
    const struct settings *settings = server->settings;
    bool has_path = settings->folder.path != NULL;
    if (has_path && settings->fs.tag != NULL)
        return 0;
    int result = error_set(&server->error, VIAL_ERROR_MISSING, VIAL_PHASE_START, "there is no %s",
                           has_path ? "--tag" : "--path");
    error_remedy(&server->error, has_path ? "give --tag TAG, by which the guest mounts it" : "give --path FOLDER");
    return result;
}

static int make_fs(struct server *server)
{
    struct settings *settings = server->settings;
    int result = check(server);
    if (result < 0)
        return result;
    /* Without the right to make files in the name of others, what the guest makes can only be ours. */
    settings->folder.has_owner = settings->folder.has_owner || !passthrough_is_privileged();
    settings->fs.posix_acl = passthrough_passes_acls(&settings->folder);
    result = passthrough_new(&settings->folder, &settings->fs.backend);
    if (result < 0) {
        device_fail(server, result, "share the folder");
        error_field(&server->error, "--path");
        error_value(&server->error, "%s", settings->folder.path);
        error_remedy(&server->error, "name a folder that this user may read");
        return result;
    }
    settings->fs.without_opens = settings->fs.read_only && settings->fs.cache == FS_CACHE_ALWAYS;
    result = fs_new(&settings->fs, &server->device);
    if (result == 0)
        return 0;
    fs_backend_release(&settings->fs.backend);
    return device_fail(server, result, "make the file system device");
}

static int run_fs(const struct command *command, int argc, char *argv[])
{
    struct settings settings = {.fs = {.queue_count = 1, .worker_count = default_workers}};
    return device_serve(command, make_fs, &settings, argc, argv);
}

const struct command command_device_fs = {
    .name = "fs",
    .path = "vial device fs",
    .arguments = "--socket PATH|--fd N --path FOLDER --tag TAG [OPTIONS]",
    .summary = "Serve a folder as a shared file system over vhost-user",
    .about = "The guest mounts it with: mount -t virtiofs TAG FOLDER",
    .statuses = SERVER_STATUSES,
    .options = {fs_options, server_options},
    .run = run_fs,
};
