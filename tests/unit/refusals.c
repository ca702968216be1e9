// SPDX-License-Identifier: Apache-2.0
/* Files that are refused, each with its exact error, and files that are accepted. */
#include "refusals.h"

#include "test.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

const struct host_capacity host = {.max_vcpus = 64, .memory_mib = 8192};
struct vial_error err;

static void make_socket(const char *path, int type)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    int fd = socket(AF_UNIX, type, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
        abort();
    close(fd);
}

void prepare(void)
{
    test_make_folder("root");
    test_make_folder("data");
    test_text_file("file", "x");
    test_text_file("kernel.elf", "\x7f"
                                 "ELF");
    test_text_file("kernel.unknown", "no mark");
    test_text_file("disk.img", "");
    if (chdir(test_folder()) < 0)
        abort();
    make_socket("socket", SOCK_DGRAM);
}

int check_json(const char *json)
{
    struct vial_vm_config *config = NULL;
    memset(&err, 0, sizeof(err));
    int result = vial_vm_config_load_text(json, strlen(json), &config, &err);
    if (result == 0)
        result = config_validate(config, &host, &err);
    vial_vm_config_free(config);
    return result;
}

void check_refusals(const struct refusal *refusals, size_t count)
{
    prepare();
    for (size_t i = 0; i < count; i++) {
        const struct refusal *expected = &refusals[i];
        int result = check_json(expected->json);
        if (result >= 0 || err.code != (int)expected->code || strcmp(err.field, expected->field) != 0 ||
            strcmp(err.value, expected->value) != 0 || strcmp(err.message, expected->message) != 0 ||
            strcmp(err.remedy, expected->remedy) != 0)
            test_fail(__FILE__, __LINE__,
                      "%s\n#   %d %s\n#   field   %s\n#   value   %s\n#   message %s\n#   remedy  %s", expected->json,
                      result, vial_error_code_name(err.code), err.field, err.value, err.message, err.remedy);
    }
}

void check_accepted(const char *const texts[], size_t count)
{
    prepare();
    for (size_t i = 0; i < count; i++)
        if (check_json(texts[i]) < 0)
            test_fail(__FILE__, __LINE__, "%s\n#   %s: %s", texts[i], err.field, err.message);
}

struct vial_vm_config *new_config(void)
{
    struct vial_vm_config *config = NULL;
    if (vial_vm_config_new(&config, &err) < 0)
        abort();
    return config;
}

void check_refused(struct vial_vm_config *config, const char *field, const char *message)
{
    memset(&err, 0, sizeof(err));
    int result = config_validate(config, &host, &err);
    if (result >= 0 || strcmp(err.field, field) != 0 || strcmp(err.message, message) != 0 || err.remedy[0] == '\0')
        test_fail(__FILE__, __LINE__, "%d %s: %s (expected %s: %s)", result, err.field, err.message, field, message);
    vial_vm_config_free(config);
}
