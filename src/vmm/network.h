// SPDX-License-Identifier: Apache-2.0
/* The part of a machine that talks to others. (network.c, passt.c) */
#ifndef VMM_NETWORK_H
#define VMM_NETWORK_H

#include "vmm/config.h"

/* What a guest of passt's has where nothing else is said: addresses that hardly anybody uses. */
#define NETWORK_PASST_ADDRESS "10.0.2.15/24"
#define NETWORK_PASST_GATEWAY "10.0.2.2"
#define NETWORK_PASST_NAMESERVER "10.0.2.3"
#define NETWORK_PASST_ADDRESS_6 "fd00:7669:616c::15/64"
#define NETWORK_PASST_GATEWAY_6 "fd00:7669:616c::2"
#define NETWORK_PASST_NAMESERVER_6 "fd00:7669:616c::3" /* of a guest without IPv4 */
enum { NETWORK_PASST_MTU = 32768 };                    /* larger frames are no faster, and come in larger bursts */

/* Settles the addresses of networks with helpers and starts those, as far as they have none, for who cannot do so
 * later; the start of a machine does it otherwise. One that was started before has to be alive. A machine that ends
 * takes them with it, so the next one with this configuration has new ones. */
int network_start_helpers(struct vial_vm_config *config, struct vial_error *err);

/* Closes what holds helpers that no machine has taken, so that they end and their ports are free. */
void network_close_helpers(struct vial_vm_config *config);

/* Starts passt for the network of this index, whose addresses are settled, and returns when it serves: our end of its
 * socket is helper_fd, and what it prints helper_said_fd. It ends when the first is closed, however that comes. */
int passt_start(struct net_config *net, size_t index, struct vial_error *err);

/* Whether that still runs: 0, or a refusal with what it has printed. */
int passt_check(const struct net_config *net, size_t index, struct vial_error *err);

#endif
