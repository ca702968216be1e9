// SPDX-License-Identifier: Apache-2.0
/* Making images, for what makes them as a step of something longer. */
#ifndef DISK_IMAGE_CREATE_H
#define DISK_IMAGE_CREATE_H

#include "disk/image.h"

/* Whether the options make sense together; the size is not looked at. */
int image_check_options(const struct image_create_options *options, struct vial_error *err);

/* Makes an empty file an image. Of the options, path is for messages; the size is final. */
int image_fill(int fd, const struct image_create_options *options, struct vial_error *err);

#endif
