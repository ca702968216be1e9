// SPDX-License-Identifier: Apache-2.0
/* Sections of a configuration file, as tables of their keys. (config_json.c) */
#ifndef VMM_CONFIG_JSON_H
#define VMM_CONFIG_JSON_H

#include "base/json.h"
#include "vmm/config.h"

#include <stddef.h>

/* A key of an object, and the member of the option struct that it sets. MEMBER_OTHER is a key that the section reads on
 * its own. A member that is not in the file keeps its default. */
struct member {
    const char *key;
    enum {
        MEMBER_OTHER,
        MEMBER_TEXT,
        MEMBER_BOOL,
        MEMBER_U16,
        MEMBER_U32,
        MEMBER_U64,
        MEMBER_FD,
        MEMBER_CHOICE,
        MEMBER_BYTE_CHOICE, /* the same in a byte */
    } kind;
    size_t offset;
    const char *const *names; /* of a choice */
    int32_t first;            /* the value of names[0] */
};

#define MEMBER(type, member, how) .key = #member, .kind = (how), .offset = offsetof(struct type, member)
#define CHOICE(type, member, words, least) MEMBER(type, member, MEMBER_CHOICE), .names = (words), .first = (least)
#define BYTE_CHOICE(type, member, words, least)                                                                        \
    MEMBER(type, member, MEMBER_BYTE_CHOICE), .names = (words), .first = (least)
#define OTHER(word) .key = (word)

/* Reads an object by its table into `options`; keys that are not in the table are refused. */
int json_read_object(const struct json_cursor *at, const struct member *members, void *options, struct vial_error *err);

int json_refuse_missing(const struct json_cursor *at, const char *key, const char *remedy, struct vial_error *err);

/* NULL-terminated; the strings are borrowed from the document or owned by `made`. */
struct json_strings {
    const char **items; /* owned array */
    char **made;        /* owned array of owned strings, or NULL */
    size_t count;
};

int json_read_strings(const struct json_cursor *at, struct json_strings *strings, struct vial_error *err);
void json_strings_free(struct json_strings *strings);

typedef int section_reader(struct vial_vm_config *config, const struct json_cursor *at, struct vial_error *err);

/* Reads each element of an array with `reader`. */
int json_read_array(struct vial_vm_config *config, const struct json_cursor *at, const char *key, size_t max_count,
                    section_reader *reader, struct vial_error *err);

/* The sections of config_json_net.c; all but tsi read one element of a list. */
section_reader json_read_net, json_read_port, json_read_tsi, json_read_vsock_port;

/* The sections of config_json_storage.c; all but the root read one element of a list. */
section_reader json_read_root, json_read_fs, json_read_mapped_dir, json_read_mount, json_read_tmpfs, json_read_disk;

#endif
