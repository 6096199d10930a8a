/* drivers: gives the hardware of the default guest its kernel modules, at boot and later.
 *
 *   modules.c   the tables that depmod writes, and loading from them
 *   uevent.c    what the kernel says of devices that come, and those that are there
 *   ahci.c      a controller that can be left alone
 *   network.c   addresses for network interfaces
 *   modprobe.c  the same tables for the kernel's and the user's own wishes
 *   main.c      the order of things
 *
 * A full modprobe of everything, or a shell that walks sysfs, costs seconds under TCG. */
#ifndef DRIVERS_H
#define DRIVERS_H

#include <stdbool.h>
#include <stddef.h>

enum { PATH_SIZE = 512, CMDLINE_SIZE = 4096 };

/* Read a whole file as a string; NULL when it cannot be read. The caller owns it. */
char *file_read(const char *path);
/* Write *text* into an existing file; 0, or -1 with errno. */
int file_write(const char *path, const char *text);
/* Complain on the kernel's log, and so on the serial port. */
void complain(const char *what, const char *name, int error);
/* The value after *key* in the words of *line*, from *after* on: "key=value". The value ends
 * at a space or the end. NULL when there is none. */
const char *word_after(const char *line, const char *key);

/* Read modules.dep and modules.alias of the running kernel; 0, or -1 with errno. */
int modules_open(void);
/* Load one module by name with all it needs; 0, or -1 with errno. */
int modules_load(const char *name);
/* Load every module whose aliases match; how many do match. */
size_t modules_match(const char *alias);

/* Begin to hear the kernel's messages about devices: a descriptor, or -1. */
int uevent_open(void);
/* Act on all messages that have come, without waiting. */
void uevent_drain(int fd);
/* Load the modules for all devices that are there now. */
void uevent_walk(void);

/* Whether the PCI device in this folder of sysfs is a SATA controller without any disk, and
 * will never have one. */
bool ahci_is_empty(const char *device, const char *alias);

/* Give an interface its address: from the kernel's command line, or by DHCP. */
void network_up(const char *interface);

int modprobe_main(int argc, char **argv);

#endif
