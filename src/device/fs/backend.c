// SPDX-License-Identifier: Apache-2.0
/* Where a shared file system's files come from: what all backends have in common. */
#include "device/fs/backend.h"

void fs_backend_release(struct fs_backend *backend)
{
    if (backend->ops.release != NULL)
        backend->ops.release(backend->user);
    *backend = (struct fs_backend){.user = NULL};
}
