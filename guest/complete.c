// SPDX-License-Identifier: Apache-2.0
/* A request that leaves something open, completed from a file of the guest's. (krun.c)
 *
 *     the request's KRUN_CONFIG, or /.krun_config.json ──> text ──> krun_read ──> tmpfs mounted ──> krun_complete
 *
 * A file that is not there says nothing, and that is no failure. A mount point that has a file system already keeps it:
 * an OCI runtime's configuration wants /dev and /dev/shm, which are there.
 *
 * Invariants: (1) nothing of the file has an effect before the whole of it was understood. (2) a failure tells the
 * place in the file, where there is one.
 *
 * Trust: the file is whoever's made the root; see krun.c.
 */
#include "complete.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool fail(struct init_answer *failure, int result, size_t place)
{
    *failure = (struct init_answer){
        .kind = INIT_FAILED, .stage = INIT_STAGE_CONFIG, .os_error = (uint32_t)-result, .mount = (uint32_t)place};
    return false;
}

/* The whole file, and in *ret_length as much of it as there is. */
static int read_file(const char *path, char **ret_text, size_t *ret_length)
{
    size_t length = 0;
    ssize_t got = 1;
    int fd = open_plain(path);
    if (fd < 0)
        return fd;
    char *text = malloc(LIMIT_KRUN_CONFIG_BYTES + 1); /* one more, by which a longer one is known */
    int result = text == NULL ? -ENOMEM : 0;
    while (result == 0 && got > 0 && length <= LIMIT_KRUN_CONFIG_BYTES) {
        got = read(fd, text + length, LIMIT_KRUN_CONFIG_BYTES + 1 - length);
        result = got < 0 ? -errno : 0;
        length += got > 0 ? (size_t)got : 0;
    }
    close(fd);
    if (result == 0 && length > LIMIT_KRUN_CONFIG_BYTES)
        result = -EFBIG;
    *ret_text = text; /* to be freed in any case */
    *ret_length = length;
    return result;
}

static bool mount_all(const struct krun_config *config, struct init_answer *ret_failure)
{
    for (size_t i = 0; i < config->mount_count; i++) {
        const struct krun_mount *mount = &config->mounts[i];
        int result = is_mounted(mount->target) ? 0 : storage_mount("tmpfs", "tmpfs", mount->target, mount->options);
        if (result < 0)
            return fail(ret_failure, result, mount->place);
    }
    return true;
}

bool complete_request(const struct init_request *given, struct completion *completion, struct init_answer *ret_failure)
{
    fstab_mount();
    const char *path = krun_variable(given, INIT_CONFIG_VARIABLE), *hostname;
    size_t length = 0, place = INIT_NO_MOUNT;
    int result = read_file(path != NULL ? path : INIT_CONFIG_FILE, &completion->text, &length);
    bool has_file = result != -ENOENT && result != -ENOTDIR;
    if (result < 0 && has_file)
        return fail(ret_failure, result, place);
    result = has_file ? krun_read(&completion->config, completion->text, length, &place) : 0;
    if (result < 0)
        return fail(ret_failure, result, place);
    if (!mount_all(&completion->config, ret_failure))
        return false;
    result = krun_complete(given, &completion->config, &completion->request, &completion->table);
    if (result < 0)
        return fail(ret_failure, result, INIT_NO_MOUNT);
    hostname = krun_variable(&completion->request, "HOSTNAME");
    if (hostname == NULL)
        hostname = "localhost"; /* as libkrun names it */
    if (sethostname(hostname, strlen(hostname)) < 0)
        tell("name", hostname, -errno);
    return true;
}

void free_completion(struct completion *completion)
{
    free(completion->table);
    krun_free(&completion->config);
    free(completion->text);
    *completion = (struct completion)COMPLETION_INIT;
}
