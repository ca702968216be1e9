// SPDX-License-Identifier: Apache-2.0
/* The arguments of the user-mode Linux program, which are its kernel's command line. */
#ifndef ENGINE_UML_CMDLINE_H
#define ENGINE_UML_CMDLINE_H

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

struct uml_cmdline_device {
    const char *socket; /* path, as the kernel sees it */
    unsigned type;      /* enum virtio_type */
};

struct uml_cmdline_options {
    unsigned vcpus;
    uint64_t memory_bytes;
    const char *state_folder;
    const char *initramfs; /* path as the kernel sees it, or NULL */
    const char *text;      /* what somebody else wrote, as one piece behind ours; may be empty */
    const struct uml_cmdline_device *devices;
    size_t device_count;
};

struct uml_cmdline {
    char *text;         /* owned: the arguments, each terminated */
    const char **words; /* owned array into text, NULL behind the last: argv */
};

/* 0, or an error: text that a command line cannot carry, or more than the kernel takes. */
int uml_cmdline_make(const struct uml_cmdline_options *options, struct uml_cmdline *ret_cmdline,
                     struct vial_error *err);
void uml_cmdline_free(struct uml_cmdline *cmdline);

#endif
