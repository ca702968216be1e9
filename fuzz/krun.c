// SPDX-License-Identifier: Apache-2.0
/* Any bytes as a guest's own configuration, and a request completed from it. What must hold: a failure is one of those
 * that are said, at a place in the text; everything that is understood lies in the text, has a bounded number, and
 * makes a request with a program, whole arrays, and variables that have names. */
#include "fuzz.h"

#include "krun.h"

#include <errno.h>

static void check_inside(const char *string, const char *text, size_t length)
{
    FUZZ_CHECK(string >= text && string < text + length &&
               memchr(string, '\0', length - (size_t)(string - text)) != NULL);
}

static void check_request(const struct init_request *given, const struct krun_config *config)
{
    struct init_request request;
    void *table = NULL;
    FUZZ_CHECK(krun_complete(given, config, &request, &table) == 0);
    FUZZ_CHECK(request.path[0] != '\0' && request.workdir[0] != '\0' && !request.wants_config);
    FUZZ_CHECK(request.args[-1] == request.path && request.args[request.arg_count] == NULL);
    FUZZ_CHECK(request.env[request.env_count] == NULL && request.env_count >= 2);
    for (size_t i = 0; i < request.env_count; i++)
        FUZZ_CHECK(strchr(request.env[i], '=') > request.env[i]);
    FUZZ_CHECK(krun_variable(&request, "HOME") != NULL && krun_variable(&request, "TERM") != NULL);
    free(table);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const args[] = {"-c", "x"}, *const env[] = {"KRUN_HOME=/root", "A=b", "HOME=/h"};
    const struct init_request nothing = {.path = "", .workdir = "", .wants_config = true};
    const struct init_request something = {.path = size % 2 == 0 ? "" : "sh",
                                           .workdir = size % 3 == 0 ? "" : "/w",
                                           .args = args,
                                           .arg_count = 2,
                                           .env = env,
                                           .env_count = 3,
                                           .wants_config = true};
    struct krun_config config = KRUN_CONFIG_INIT;
    size_t place = SIZE_MAX;
    char *text = malloc(size > 0 ? size : 1); /* of exactly that size: nothing is written behind it */
    FUZZ_CHECK(text != NULL);
    if (size > 0)
        memcpy(text, data, size);
    int result = krun_read(&config, text, size, &place);
    if (result < 0) {
        FUZZ_CHECK((result == -EBADMSG || result == -EINVAL || result == -E2BIG) && place <= size);
        FUZZ_CHECK(config.tree.nodes == NULL && config.strings == NULL && config.mounts == NULL);
        free(text);
        return 0;
    }
    FUZZ_CHECK(config.arg_count + config.env_count <= (size_t)2 * LIMIT_STRINGS && config.mount_count <= LIMIT_TMPFS);
    for (size_t i = 0; i < config.arg_count; i++)
        check_inside(config.args[i], text, size);
    for (size_t i = 0; i < config.env_count; i++)
        check_inside(config.env[i], text, size);
    for (size_t i = 0; i < config.mount_count; i++) {
        check_inside(config.mounts[i].target, text, size);
        FUZZ_CHECK(config.mounts[i].target[0] == '/' && strlen(config.mounts[i].options) <= LIMIT_MOUNT_OPTIONS_BYTES);
        FUZZ_CHECK(config.mounts[i].place < size);
    }
    check_request(&nothing, &config);
    check_request(&something, &config);
    krun_free(&config);
    free(text);
    return 0;
}
