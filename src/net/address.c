/* address.c -- socket addresses: the kernel's form and Python's tuples. */
#include "net/address.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/un.h>

void
fl_address_set(fl_address *address, const void *addr, socklen_t len)
{
    const struct sockaddr *sockaddr = addr;
    address->len = 0;
    if ((sockaddr->sa_family == AF_INET || sockaddr->sa_family == AF_INET6)
        && len <= sizeof(address->data))
    {
        memcpy(address->data, addr, len);
        address->len = (uint8_t)len;
    }
}

bool
fl_sockaddr_is_wildcard(const struct sockaddr *addr)
{
    struct sockaddr_in in;
    struct sockaddr_in6 in6;
    switch (addr->sa_family) {
    case AF_INET:
        memcpy(&in, addr, sizeof(in));
        return in.sin_addr.s_addr == htonl(INADDR_ANY);
    case AF_INET6:
        memcpy(&in6, addr, sizeof(in6));
        return IN6_IS_ADDR_UNSPECIFIED(&in6.sin6_addr);
    default:
        return false;
    }
}

static PyObject *
address_host(int family, const void *addr)
{
    char text[INET6_ADDRSTRLEN];
    if (inet_ntop(family, addr, text, sizeof(text)) == NULL) {
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    return PyUnicode_FromString(text);
}

static PyObject *
address_of_unix(const struct sockaddr_un *addr, socklen_t len)
{
    size_t room = len > offsetof(struct sockaddr_un, sun_path)
                      ? len - offsetof(struct sockaddr_un, sun_path)
                      : 0;
    if (room == 0) {
        return PyUnicode_FromString("");
    }
    if (addr->sun_path[0] == '\0') {  /* an abstract name */
        return PyBytes_FromStringAndSize(addr->sun_path, (Py_ssize_t)room);
    }
    return PyUnicode_DecodeFSDefaultAndSize(
        addr->sun_path, (Py_ssize_t)strnlen(addr->sun_path, room));
}

PyObject *
fl_sockaddr_object(const struct sockaddr *addr, socklen_t len)
{
    if (len == 0) {
        Py_RETURN_NONE;
    }
    switch (addr->sa_family) {
    case AF_INET: {
        struct sockaddr_in in;
        memcpy(&in, addr, sizeof(in));
        PyObject *host = address_host(AF_INET, &in.sin_addr);
        return host == NULL
                   ? NULL
                   : Py_BuildValue("Ni", host, (int)ntohs(in.sin_port));
    }
    case AF_INET6: {
        struct sockaddr_in6 in6;
        memcpy(&in6, addr, sizeof(in6));
        PyObject *host = address_host(AF_INET6, &in6.sin6_addr);
        return host == NULL
                   ? NULL
                   : Py_BuildValue("NiII", host, (int)ntohs(in6.sin6_port),
                                   (unsigned int)ntohl(in6.sin6_flowinfo),
                                   (unsigned int)in6.sin6_scope_id);
    }
    case AF_UNIX:
        return address_of_unix((const struct sockaddr_un *)addr, len);
    default:
        return NULL;
    }
}

PyObject *
fl_address_tuple(const fl_address *address)
{
    struct sockaddr_storage storage;
    memcpy(&storage, address->data, address->len);
    return fl_sockaddr_object((struct sockaddr *)&storage, address->len);
}
