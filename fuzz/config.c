// SPDX-License-Identifier: Apache-2.0
/* Any bytes as a configuration file: read, validated, written, and read again to the same text.
 *
 * What must hold: an error has a message and a remedy; an accepted file's dump is accepted and dumps to itself (but for
 * the numbers of descriptors).
 */
#include "fuzz.h"

#include "host/capacity.h"
#include "vmm/config.h"

static struct vial_vm_config *load(const char *text, size_t length)
{
    struct vial_vm_config *config = NULL;
    struct vial_error err = {0};
    if (vial_vm_config_load_text(text, length, &config, &err) == 0)
        return config;
    FUZZ_CHECK(err.code != VIAL_ERROR_NONE && err.message[0] != '\0' && err.remedy[0] != '\0');
    return NULL;
}

static char *dump(const struct vial_vm_config *config)
{
    char *text = NULL;
    struct vial_error err = {0};
    FUZZ_CHECK(vial_vm_config_dump(config, &text, &err) == 0);
    return text;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct host_capacity host = {.max_vcpus = 64, .memory_mib = 8192};
    struct vial_error err = {0};
    struct vial_vm_config *config = load((const char *)data, size);
    if (config == NULL)
        return 0;
    if (config_validate(config, &host, &err) < 0)
        FUZZ_CHECK(err.code != VIAL_ERROR_NONE && err.message[0] != '\0' && err.remedy[0] != '\0');
    char *first = dump(config);
    struct vial_vm_config *again = load(first, strlen(first));
    FUZZ_CHECK(again != NULL);
    char *second = dump(again);
    FUZZ_CHECK(strstr(first, "fd\": ") != NULL || strcmp(first, second) == 0);
    free(first);
    free(second);
    vial_vm_config_free(config);
    vial_vm_config_free(again);
    return 0;
}
