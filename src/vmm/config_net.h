// SPDX-License-Identifier: Apache-2.0
/* Networks of a configuration, beyond what the public header has. */
#ifndef VMM_CONFIG_NET_H
#define VMM_CONFIG_NET_H

struct vial_vm_config;

/* Takes all networks out of a configuration that no machine has yet. */
void config_clear_net(struct vial_vm_config *config);

#endif
