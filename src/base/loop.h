// SPDX-License-Identifier: Apache-2.0
/* An event loop: descriptors, timers and signals on one thread.
 *
 * A source is added with a function that is called when it is ready. Sources may be added, changed and freed at any
 * time on the loop's thread, from inside their own function too. Only loop_stop may be called from elsewhere: from any
 * thread, and from a signal handler.
 */
#ifndef BASE_LOOP_H
#define BASE_LOOP_H

#include <stdint.h>

struct loop;
struct loop_source;

/* `what`: the EPOLL* events of a descriptor, how often a timer's deadline passed (always 1), or a signal's number. */
typedef void (*loop_function)(void *user, uint32_t what);

int loop_new(struct loop **ret_loop);
struct loop *loop_free(struct loop *loop); /* frees its sources, too */

/* Runs until loop_stop: 0 or -errno. The functions of the round in which the stop came are still called, nothing after
 * them; a stop that came before the run ends it at once. It can be run again. */
int loop_run(struct loop *loop);
void loop_stop(struct loop *loop);

/* Calls the functions of what is ready now, without waiting: for a caller who has a loop of his own, and for tests. */
int loop_turn(struct loop *loop);

/* The descriptor is borrowed and must outlive the source. -EEXIST when it is in this loop already. */
int loop_add_fd(struct loop *loop, int fd, uint32_t events, loop_function function, void *user,
                struct loop_source **ret_source);
int loop_set_events(struct loop_source *source, uint32_t events);

/* A timer that fires once at its deadline (base/clock.h) and can then be set again. CLOCK_NEVER disarms it. */
int loop_add_timer(struct loop *loop, uint64_t deadline_ns, loop_function function, void *user,
                   struct loop_source **ret_source);
void loop_set_deadline(struct loop_source *timer, uint64_t deadline_ns);

/* Takes the signal away from the calling thread's normal delivery as long as the source lives. Other threads must have
 * it blocked, and no other loop of this thread may want it. -EEXIST when this loop has it already. */
int loop_add_signal(struct loop *loop, int signal_number, loop_function function, void *user,
                    struct loop_source **ret_source);

struct loop_source *loop_source_free(struct loop_source *source);

#endif
