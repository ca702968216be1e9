// SPDX-License-Identifier: Apache-2.0
/* Files with several names: a hash table with chains, keyed by device and inode number.
 *
 * A file is forgotten when the last of its names was met, so a tree whose links lie close together takes little memory
 * however large it is. Past TREE_MOST_LINKS a file is not remembered: its names become files of their own.
 *
 * Invariants: (1) every link is in the bucket of its hash. (2) there are at most TREE_MOST_LINKS of them, and as many
 * buckets or half as many, but for the first.
 *
 * Trust: numbers and counts are what the file system says, which may be a guest's or anybody's: they cost memory within
 * the bound, and time in the chain of one bucket.
 */
#include "proto/tree_links.h"

#include "base/alloc.h"
#include "proto/tree.h"

#include <stdint.h>
#include <string.h>

struct tree_link {
    struct tree_link *next; /* owned, by its bucket */
    uint64_t device, inode;
    uint64_t left; /* names that have not been met: at least one */
    char path[];
};

enum { first_buckets = 64 };

/* Fibonacci hashing: the upper bits of the product depend on all of the inode's number. */
static size_t bucket_of(const struct tree_links *links, uint64_t device, uint64_t inode)
{
    uint64_t mixed = (inode + device * 31) * UINT64_C(0x9e3779b97f4a7c15);
    return (size_t)(mixed >> 32) & (links->bucket_count - 1);
}

static bool make_room(struct tree_links *links)
{
    struct tree_links bigger = {.bucket_count = links->bucket_count > 0 ? 2 * links->bucket_count : first_buckets};
    if (links->bucket_count > 0 && (links->count < links->bucket_count || links->bucket_count >= TREE_MOST_LINKS))
        return true;
    bigger.buckets = alloc_zero(bigger.bucket_count * sizeof(*bigger.buckets));
    if (bigger.buckets == NULL)
        return false;
    for (size_t i = 0; i < links->bucket_count; i++)
        for (struct tree_link *link = links->buckets[i], *next; link != NULL; link = next) {
            struct tree_link **bucket = &bigger.buckets[bucket_of(&bigger, link->device, link->inode)];
            next = link->next;
            link->next = *bucket;
            *bucket = link;
        }
    free(links->buckets);
    links->buckets = bigger.buckets;
    links->bucket_count = bigger.bucket_count;
    return true;
}

/* Where the pointer to the link is or would be. */
static struct tree_link **find(struct tree_links *links, const struct stat *status)
{
    struct tree_link **at = &links->buckets[bucket_of(links, status->st_dev, status->st_ino)];
    while (*at != NULL && ((*at)->inode != status->st_ino || (*at)->device != status->st_dev))
        at = &(*at)->next;
    return at;
}

/* After the last name the link leaves its chain, but its path is still in use. */
static const char *meet_again(struct tree_links *links, struct tree_link **at)
{
    struct tree_link *link = *at;
    if (--link->left == 0) {
        *at = link->next;
        links->met = link;
        links->count--;
    }
    return link->path;
}

const char *tree_links_meet(struct tree_links *links, const struct stat *status, const char *path, size_t length)
{
    if (!make_room(links))
        return NULL;
    free(links->met);
    links->met = NULL;
    struct tree_link **at = find(links, status);
    if (*at != NULL)
        return meet_again(links, at);
    if (links->count >= TREE_MOST_LINKS)
        return "";
    struct tree_link *link = alloc_zero(sizeof(*link) + length + 1);
    if (link == NULL)
        return NULL;
    link->device = status->st_dev;
    link->inode = status->st_ino;
    link->left = status->st_nlink - 1;
    memcpy(link->path, path, length);
    *at = link;
    links->count++;
    return "";
}

void tree_links_free(struct tree_links *links)
{
    for (size_t i = 0; i < links->bucket_count; i++)
        for (struct tree_link *link = links->buckets[i], *next; link != NULL; link = next) {
            next = link->next;
            free(link);
        }
    free(links->met);
    free(links->buckets);
    *links = (struct tree_links){0};
}
