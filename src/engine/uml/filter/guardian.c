// SPDX-License-Identifier: Apache-2.0
/* Writes the filter of the jail's guardian as rows of a C array of struct sock_filter. Runs when Vial is built.
 *
 * The guardian shares the memory of our process, its stack among it. Whoever took over a thread of ours could have the
 * guardian do as he likes, so it can do no more than wait, and kill.
 */
#include "base/filter/write.h"

#include <signal.h>

int main(void)
{
    static const char *const allowed[] = {"rt_sigtimedwait", "waitid", "exit", NULL};
    static const struct filter_rule rules[] = {
        {"pidfd_send_signal", 3, {{1, 0, SIGKILL}, {2, 0, 0}, {3, 0, 0}}},
        {"kill", 1, {{1, 0, SIGKILL}}},
        {"write", 1, {{2, 0, 1}}}, /* that it has made the child */
        {.name = NULL},
    };
    static const struct filter_group guardian = {.allowed = allowed, .rules = rules};
    const struct filter_group *const groups[] = {&guardian, NULL};
    filter_write(groups);
    return 0;
}
