// SPDX-License-Identifier: Apache-2.0
/* A machine on user-mode Linux for tests: the project's kernel, the tests' own first process (guest.c), a console on
 * pipes, and an end that can be waited for. */
#ifndef TESTS_UML_H
#define TESTS_UML_H

#include "engine/uml/machine.h"

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>

struct virtio_device;

struct guest_options {
    const char *mode;           /* what the guest does: guest.c */
    unsigned vcpus, memory_mib; /* 0: 1 and 128 */
    const char *cmdline;        /* further words, or NULL */
    const char *kernel;         /* path, or NULL for the project's */
    unsigned console_ports;     /* 0: 1 */
    bool has_no_devices, allows_no_jail;
};

enum { GUEST_DEVICES = 3, GUEST_TEXT_BYTES = 1 << 16 };

struct guest {
    struct virtio_device *devices[GUEST_DEVICES]; /* owned: console, rng, balloon */
    size_t device_count;
    struct uml_machine *machine; /* owned */
    int kernel_fd, initramfs_fd; /* owned */
    int input_fd, output_fd;     /* owned: our ends of the console's pipes */
    char cmdline[1024];
    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t changed;
    unsigned ends; /* how often on_end was called */
    struct vial_exit exit;
    void (*in_end)(struct guest *guest); /* called in on_end, or NULL */
    uint64_t start_ns, started_ns, up_ns, end_ns;
    char text[GUEST_TEXT_BYTES]; /* that came from the console and was not expected yet */
    size_t length;
};

extern struct vial_error guest_error;

/* Everything but the start; guest_error says why not. */
bool guest_new(struct guest *guest, const struct guest_options *options);
bool guest_start(struct guest *guest);
bool guest_run(struct guest *guest, const struct guest_options *options); /* both */
void guest_free(struct guest *guest);

/* Reads the console until the text has come, which is then forgotten with what stood before it. False after 20 s, or at
 * the end of the output. */
bool guest_expect(struct guest *guest, const char *wanted);

/* How many bytes come from the console within so many milliseconds. */
size_t guest_count_bytes(struct guest *guest, int milliseconds);

/* Waits for on_end, at most 20 s. */
bool guest_wait(struct guest *guest);

/* The same, and whether the reason was that one; says what it was otherwise. */
bool guest_ends(struct guest *guest, enum vial_exit_reason reason);

/* An initramfs with that program as /init, in a memfd. */
int guest_initramfs(const char *init_path);

/* The path of the project's user-mode Linux, or NULL. */
const char *guest_kernel(void);

#endif
