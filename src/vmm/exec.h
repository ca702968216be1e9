// SPDX-License-Identifier: Apache-2.0
/* What a guest is to mount and to run: what its init is asked, and what it tells. (proto/init.h)
 *
 *     exec_new        before the console is made
 *     exec_ports      its ports, for the console; the kernel's command line gets EXEC_CMDLINE
 *       … the machine runs …
 *     exec_judge      when the machine has ended and its console has stopped: what the end means
 *     exec_free       when the console is gone
 */
#ifndef VMM_EXEC_H
#define VMM_EXEC_H

#include "device/console/console.h"
#include "proto/init.h"
#include "vmm/config.h"

struct exec;

/* For the kernel's command line: it reaches the init as a variable of its environment. */
#define EXEC_CMDLINE_KEY INIT_VARIABLE
#define EXEC_CMDLINE_VALUE "1"

enum { EXEC_MOST_PORTS = CONFIG_EXEC_PORTS };

/* For a configuration that was validated, with something to run or to mount (config_asks_init), borrowed until
 * exec_free. With a terminal the program runs on the guest's console, which the caller provides (a console port before
 * those of exec_ports); without, its streams are what exec_set_streams names. */
int exec_new(const struct vial_vm_config *config, bool has_terminal, struct exec **ret_exec, struct vial_error *err);
struct exec *exec_free(struct exec *exec);

/* Standard input, output and error: borrowed until the console is made (console_new duplicates them). -1: none, which
 * is an empty input, or an output that goes nowhere. Before exec_ports. */
void exec_set_streams(struct exec *exec, const int fds[3]);

/* Called on the console's thread, once, when the program's first instruction is next. Before the console is launched.
 * Must not free anything of the machine. */
void exec_on_start(struct exec *exec, void (*function)(void *user), void *user);

/* Called on the console's thread, once, when the guest has said how it went, has nothing left to be written anywhere,
 * and its output is delivered: the machine may be ended. Without such a function the guest is told to do that itself.
 * Before the console is launched. Must not free anything of the machine. */
void exec_on_end(struct exec *exec, void (*function)(void *user), void *user);

/* Fills in the ports, in the order in which the console must have them one after another, and returns their number: 1
 * with a terminal or nothing to run, 2 with an agent, else 4. They borrow from the exec until exec_free. */
size_t exec_ports(struct exec *exec, struct console_port_options ports[EXEC_MOST_PORTS]);

/* When the program began (base/clock.h), or 0. From any thread, at any time. */
uint64_t exec_started_ns(const struct exec *exec);

/* What the end of the machine means for its program. COMPLETED and GUEST_RESET become COMPLETED or FAILED, with the
 * program's exit code, or 128 + signal, or 126 and 127 where it could not be executed (127: there is no such file), or
 * without a code where something could not be mounted, and a detail; other reasons stay as they are. Where the guest
 * says itself what runs (exec_from_guest), 126 is only for a program that cannot be executed, and 125 for everything
 * else. Not before the console has stopped. */
void exec_judge(const struct exec *exec, struct vial_exit *exit);

#endif
