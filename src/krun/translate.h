// SPDX-License-Identifier: Apache-2.0
/* What a context of libkrun.h is to Vial. */
#ifndef KRUN_TRANSLATE_H
#define KRUN_TRANSLATE_H

#include "krun/context.h"
#include "vial/vmm.h"

/* Completes the context's configuration to that of the machine which it describes, on this host: 0, or an error. */
int krun_translate(struct krun_context *context, struct vial_error *err);

/* ---- its parts ---- */

/* Whether the first process is the program's own affair: then it is told by the kernel's command line what libkrun
 * tells its init there. */
static inline bool krun_has_own_init(const struct krun_context *context)
{
    return context->without_init || context->initramfs != NULL;
}

/* The first interface, or NULL. */
static inline const struct krun_net *krun_first_net(const struct krun_context *context)
{
    return context->net_count > 0 ? &context->nets[0] : context->legacy_net.kind != 0 ? &context->legacy_net : NULL;
}

/* Roots and disks (translate_storage.c). */
int krun_translate_storage(const struct krun_context *context, bool is_uml, struct vial_vm_config *config,
                           struct vial_error *err);

/* Consoles and what runs (translate_program.c). */
int krun_translate_program(const struct krun_context *context, struct vial_vm_config *config, struct vial_error *err);

#endif
