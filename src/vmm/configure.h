// SPDX-License-Identifier: Apache-2.0
/* What the files that build a configuration share (config.c, config_storage.c, config_net.c): sized
 * structs, copies, refusals.
 *
 * Each returns 0, or a negative errno with what is wrong in `err`.
 */
#ifndef VMM_CONFIGURE_H
#define VMM_CONFIGURE_H

#include "base/alloc.h"
#include "base/error.h"
#include "vmm/config.h"

/* Copies the caller's sized struct over our defaults. What the caller's header has beyond ours must be zero. */
int config_take_sized(void *ours, size_t our_size, const void *theirs, struct vial_error *err);

/* A configuration that a machine has stays as it is. */
int config_check_free(const struct vial_vm_config *config, struct vial_error *err);

int config_check_reserved(const uint8_t *reserved, size_t size, struct vial_error *err);

/* The same for a struct with reserved bytes, in which a newer header may have put a member, and for a configuration
 * that may still be changed. */
#define TAKE_SIZED(config, ours, theirs, err)                                                                          \
    __extension__({                                                                                                    \
        int taken = config_check_free((config), (err));                                                                \
        taken = taken < 0 ? taken : config_take_sized(&(ours), sizeof(ours), (theirs), (err));                         \
        taken < 0 ? taken : config_check_reserved((ours).reserved, sizeof((ours).reserved), (err));                    \
    })

/* A text that a call cannot do without. */
int config_check_text(const char *text, const char *field, struct vial_error *err);

int config_no_memory(struct vial_error *err);

/* A copy in *slot, or NULL for NULL; false without memory. */
bool config_copy_text(char **slot, const char *text);

/* Our own duplicate of the caller's descriptor, or -1 for a negative one. The index is that of a field's element. */
#define CONFIG_NO_INDEX SIZE_MAX
int config_copy_fd(int *slot, int fd, const char *field, size_t index, const char *member, struct vial_error *err);

int config_grow_failed(int result, const char *field, size_t max_count, struct vial_error *err);

/* Room for one more element of an array of the configuration. */
#define GROW(config, array, count, capacity, max_count, field, err)                                                    \
    __extension__({                                                                                                    \
        int grown = alloc_grow((void **)&(config)->array, (config)->count, &(config)->capacity,                        \
                               sizeof((config)->array[0]), (max_count));                                               \
        grown < 0 ? config_grow_failed(grown, field, max_count, err) : 0;                                              \
    })

int config_refuse_text(int result, const char *field, size_t index, const char *what, const char *text, const char *why,
                       const char *remedy, struct vial_error *err);

/* Adds copies of NULL-terminated strings (NULL: none), counting their bytes. */
int string_list_copy(struct string_list *list, const char *const *strings, const char *field, size_t *total_bytes,
                     struct vial_error *err);
void string_list_free(struct string_list *list);

/* Everything of config_storage.c, config_entries.c and config_net.c. */
void config_free_storage(struct vial_vm_config *config);
void config_free_entries(struct vial_vm_config *config);
void config_free_networks(struct vial_vm_config *config);

#endif
