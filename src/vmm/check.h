// SPDX-License-Identifier: Apache-2.0
/* What the checks of a configuration share: naming a field, refusing it, asking the host about a path.
 *
 * Every check returns 0, or the negative errno of a refusal that it has written to `err` with field, value, message and
 * remedy.
 */
#ifndef VMM_CHECK_H
#define VMM_CHECK_H

#include "base/alloc.h"
#include "base/error.h"
#include "base/text.h"
#include "vmm/config.h"

#include <sys/stat.h>

/* The name of a field; lives until the end of the expression that made it. */
struct place {
    char text[VIAL_ERROR_FIELD_SIZE];
};

struct place place_of(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Long values in the message are to be shortened by error_short, so that the reason stays in sight. */
int refuse(struct vial_error *err, enum vial_error_code code, const char *field, const char *value, const char *remedy,
           const char *format, ...) __attribute__((format(printf, 6, 7)));
int refuse_number(struct vial_error *err, enum vial_error_code code, const char *field, int64_t value,
                  const char *remedy, const char *message);

/* Given and not empty. */
int check_given(const char *text, const char *field, const char *remedy, struct vial_error *err);

/* Paths of the host. */
int check_exists(const char *path, const char *field, struct stat *ret_status, struct vial_error *err);
int check_access(const char *path, int wanted, const char *field, struct vial_error *err);
int check_folder(const char *path, const char *field, struct vial_error *err);
int check_file(const char *path, const char *field, struct vial_error *err);
int check_parent(const char *path, const char *field, struct vial_error *err);
int check_socket_path(const char *path, const char *field, struct vial_error *err);

/* A path of the guest, normalized into new memory. */
int check_guest_path(const char *path, const char *field, char **ret_normal, struct vial_error *err);

/* Only characters that the kernel command line carries. */
int check_cmdline_text(const char *text, const char *field, struct vial_error *err);

/* The sections, in the files of their names. */
int check_file_systems(const struct vial_vm_config *config, struct vial_error *err);
int check_disks(const struct vial_vm_config *config, struct vial_error *err);
int check_mounts(const struct vial_vm_config *config, struct vial_error *err); /* and the root; after the two before */
int check_networks(const struct vial_vm_config *config, struct vial_error *err);
int check_vsock_ports(const struct vial_vm_config *config, struct vial_error *err);
int check_console(const struct vial_vm_config *config, struct vial_error *err);

#endif
