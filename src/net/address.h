/* address.h -- socket addresses: the kernel's form and Python's tuples. */
#ifndef FL_NET_ADDRESS_H
#define FL_NET_ADDRESS_H

#include "base/base.h"

#include <sys/socket.h>

/* An IPv4 or IPv6 address, small enough to lie in every connection. */
typedef struct {
    uint8_t len;   /* 0: none */
    char data[28]; /* a sockaddr_in or sockaddr_in6 */
} fl_address;

/* Keeps addr if it is of a family that fits; else *address is empty. */
void fl_address_set(fl_address *address, const void *addr, socklen_t len);

/* Whether an IPv4 or IPv6 address stands for all of the machine's own. */
bool fl_sockaddr_is_wildcard(const struct sockaddr *addr);

/* The tuple that the socket module makes of it; address is not empty. */
PyObject *fl_address_tuple(const fl_address *address) FL_RAISES;

/* The same for what recvfrom gave.  NULL without an exception: a family that
   the socket module must decode. */
PyObject *fl_sockaddr_object(const struct sockaddr *addr, socklen_t len);

#endif
