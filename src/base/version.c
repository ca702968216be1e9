// SPDX-License-Identifier: Apache-2.0
/* The version of the library, from the build. */
#include "vial/base.h"

const char *vial_version(void)
{
    return VIAL_VERSION;
}
