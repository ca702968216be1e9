// SPDX-License-Identifier: Apache-2.0
/* The guest's agent as an ordinary process of this host, for tests under sanitizers: agent-here FD
 *
 * FD is a connected stream socket in the place of the port. Only what its sessions run is signalled at the end. */
#include "guest/agent.h"
#include "guest/guest.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void tell(const char *what, const char *on, int failure)
{
    fprintf(stderr, "agent-here: %s %s: %s\n", what, on, strerrordesc_np(-failure));
}

int main(int count, char **args)
{
    if (count != 2) {
        fprintf(stderr, "usage: agent-here FD\n");
        return 2;
    }
    int port = (int)strtol(args[1], NULL, 10);
    return fcntl(port, F_SETFD, FD_CLOEXEC) < 0 || agent_serve(port) < 0;
}
