// SPDX-License-Identifier: Apache-2.0
/* monocore ROOT CONSOLE PORTS IP LOCAL FOLDERS PROGRAM [ARG…]: the calls of monocore's MicroVm.
 *
 *     PORTS      "HOST:GUEST,…", or "" for none
 *     IP         what stands for the guest's 127.0.0.1, or ""
 *     LOCAL      1: connections that lead away from the loopback are refused
 *     FOLDERS    "HOST=GUEST,…": a line of the root's /etc/fstab each, and a file system of the tag virtiofs_N
 *
 * Trust: it is run by tests/krun_suite.py only.
 */
#include "client.h"

#include <errno.h>
#include <sys/stat.h>

enum { most_words = 16 };

/* Cuts a list at its commas. */
static size_t cut(char *list, const char *parts[most_words])
{
    size_t count = 0;
    char *rest = NULL;
    for (char *part = strtok_r(list, ",", &rest); part != NULL && count < most_words - 1;
         part = strtok_r(NULL, ",", &rest))
        parts[count++] = part;
    parts[count] = NULL;
    return count;
}

static FILE *open_fstab(const char *root)
{
    char path[4096];
    snprintf(path, sizeof(path), "%s/etc/fstab", root);
    FILE *file = fopen(path, "we");
    if (file == NULL) {
        perror(path);
        exit(code_usage);
    }
    fputs("# /etc/fstab: static file system information.\n", file);
    return file;
}

static void add_folders(uint32_t context, const char *root, char *list)
{
    const char *folders[most_words];
    size_t count = cut(list, folders);
    FILE *fstab = open_fstab(root);
    for (size_t i = 0; i < count; i++) {
        char host[2048], tag[32], place[4096];
        const char *guest = strchr(folders[i], '=') + 1;
        snprintf(host, sizeof(host), "%.*s", (int)(guest - 1 - folders[i]), folders[i]);
        snprintf(tag, sizeof(tag), "virtiofs_%zu", i);
        snprintf(place, sizeof(place), "%s%s", root, guest);
        if (mkdir(place, 0755) < 0 && errno != EEXIST)
            perror(place);
        fprintf(fstab, "%s\t%s\tvirtiofs\tdefaults\t0\t0\n", tag, guest);
        MUST(krun_add_virtiofs, context, tag, host);
    }
    fclose(fstab);
}

int main(int count, char **words)
{
    static const char *const limits[] = {"7=2048:4096", NULL}, *const env[] = {"MONO=core", "PATH=/bin", NULL};
    const char *ports[most_words];
    if (count < 8)
        return code_usage;
    uint32_t context = (uint32_t)MUST(krun_create_ctx);
    MUST(krun_set_log_level, KRUN_LOG_LEVEL_WARN);
    MUST(krun_set_vm_config, context, 1, 256);
    MUST(krun_set_root, context, words[1]);
    add_folders(context, words[1], words[6]);
    cut(words[3], ports);
    MUST(krun_set_port_map, context, ports);
    MUST(krun_set_rlimits, context, limits);
    MUST(krun_set_workdir, context, "/tmp");
    MUST(krun_set_exec, context, words[7], (const char *const *)(words + 8), env);
    MUST(krun_set_console_output, context, words[2]);
    if (words[4][0] != '\0')
        MUST(krun_set_tsi_rewrite_ip, context, words[4]);
    MUST(krun_enable_tsi_local_only, context, words[5][0] == '1');
    return not_started(krun_start_enter(context));
}
