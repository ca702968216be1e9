// SPDX-License-Identifier: Apache-2.0
/* Making the handle of a program from a connection on which its request was sent. */
#ifndef SANDBOX_CLIENT_PROCESS_H
#define SANDBOX_CLIENT_PROCESS_H

#include "sandbox/client.h"

/* `action` is what errors say was to be done. Nothing is sent yet. */
int process_new(const char *action, struct vial_process **ret_process);

/* The connection, to be opened and given its request before anybody else has the handle. */
struct client *process_client(struct vial_process *process);

/* Without an input vial_process_write is refused. */
void process_set_input(struct vial_process *process, bool has_input);

/* Waits until the program runs, or could not be started. */
int process_wait_started(struct vial_process *process, uint64_t deadline_ns, struct vial_error *err);

#endif
